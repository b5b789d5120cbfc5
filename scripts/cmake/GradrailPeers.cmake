# Programs that run other libraries' collectives for `gradrail bench --against`: one a library, because two MPIs cannot
# live in one process. Each is built where its library is found. GRADRAIL_PEERS lists those that are.
set(GRADRAIL_PEERS "")
set(GRADRAIL_PEER_LAUNCHERS "")  # for bench/peers/configurations.cc

# gradrail_peer(NAME source TARGET imported-target | "not found": why): build/.../gradrail-peer-NAME
macro(gradrail_peer name source)
  cmake_parse_arguments(PEER "" "VERSION" "LINK" ${ARGN})
  add_executable(gradrail-peer-${name} peers/runner/${source})
  target_link_libraries(gradrail-peer-${name} PRIVATE gradrail_bench ${PEER_LINK})
  target_compile_definitions(gradrail-peer-${name} PRIVATE GRADRAIL_PEER_NAME="gradrail-peer-${name}")
  target_link_options(gradrail-peer-${name} PRIVATE LINKER:--as-needed)  # one MPI's process needs nothing of another's
  set_target_properties(gradrail-peer-${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
  list(APPEND GRADRAIL_PEERS ${name})
endmacro()

function(gradrail_peer_note name state)
  gradrail_note("peer ${name}" "${state}")
  set(GRADRAIL_SUMMARY "${GRADRAIL_SUMMARY}" PARENT_SCOPE)
endfunction()

option(GRADRAIL_WITH_PEERS "Build the programs that run other libraries for bench --against" ON)

# An MPI needs its headers, which pkg-config knows, and its own launcher.
macro(gradrail_mpi_peer name module)
  string(TOUPPER ${name} upper)
  pkg_check_modules(${upper} QUIET IMPORTED_TARGET ${module})
  find_program(GRADRAIL_${upper}_LAUNCHER NAMES ${ARGN})
  mark_as_advanced(GRADRAIL_${upper}_LAUNCHER)
  if(${upper}_FOUND AND GRADRAIL_${upper}_LAUNCHER)
    gradrail_peer(${name} mpi.cc LINK PkgConfig::${upper})
    list(APPEND GRADRAIL_PEER_LAUNCHERS "GRADRAIL_${upper}_LAUNCHER=\"${GRADRAIL_${upper}_LAUNCHER}\"")
    gradrail_peer_note(${name} "${${upper}_VERSION}, started by ${GRADRAIL_${upper}_LAUNCHER}")
  else()
    gradrail_peer_note(${name} "not found (bench --against ${name})")
  endif()
endmacro()

if(NOT GRADRAIL_WITH_PEERS)
  gradrail_note("peers" "switched off (bench --against)")
  return()
endif()

gradrail_mpi_peer(openmpi ompi-c mpirun.openmpi mpirun)
gradrail_mpi_peer(mpich mpich mpiexec.mpich mpiexec.hydra)

find_package(Gloo QUIET CONFIG)
if(TARGET gloo)
  gradrail_peer(gloo gloo.cc LINK gloo)
  # Its headers are not written for our warnings, and templates of theirs are instantiated in our file.
  target_compile_options(gradrail-peer-gloo PRIVATE -Wno-shadow -Wno-overloaded-virtual)
  gradrail_peer_note(gloo "${Gloo_VERSION}")
else()
  gradrail_peer_note(gloo "not found (bench --against gloo)")
endif()

# In no package of Debian: found where it was installed, if CMAKE_PREFIX_PATH names that.
find_path(GRADRAIL_UCC_INCLUDE ucc/api/ucc.h)
find_library(GRADRAIL_UCC_LIBRARY ucc)
mark_as_advanced(GRADRAIL_UCC_INCLUDE GRADRAIL_UCC_LIBRARY)
if(GRADRAIL_UCC_INCLUDE AND GRADRAIL_UCC_LIBRARY)
  gradrail_peer(ucc ucc.cc LINK ${GRADRAIL_UCC_LIBRARY})
  target_include_directories(gradrail-peer-ucc SYSTEM PRIVATE ${GRADRAIL_UCC_INCLUDE})
  file(STRINGS "${GRADRAIL_UCC_INCLUDE}/ucc/api/ucc_version.h" ucc_version REGEX "define UCC_VERSION_STRING")
  string(REGEX REPLACE ".*\"(.*)\".*" "\\1" ucc_version "${ucc_version}")
  gradrail_peer_note(ucc "${ucc_version}")
else()
  gradrail_peer_note(ucc "not found (bench --against ucc)")
endif()

find_path(GRADRAIL_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(GRADRAIL_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
mark_as_advanced(GRADRAIL_NCCL_INCLUDE GRADRAIL_NCCL_LIBRARY)
if(GRADRAIL_HAVE_CUDA AND GRADRAIL_NCCL_INCLUDE AND GRADRAIL_NCCL_LIBRARY)
  gradrail_peer(nccl nccl.cc LINK ${GRADRAIL_NCCL_LIBRARY} CUDA::cudart_static)
  target_include_directories(gradrail-peer-nccl SYSTEM PRIVATE ${GRADRAIL_NCCL_INCLUDE})
  file(STRINGS "${GRADRAIL_NCCL_INCLUDE}/nccl.h" nccl_version REGEX "define NCCL_(MAJOR|MINOR|PATCH) ")
  list(JOIN nccl_version "." nccl_version)
  string(REGEX REPLACE "[^0-9.]" "" nccl_version "${nccl_version}")
  gradrail_peer_note(nccl "${nccl_version}")
else()
  gradrail_peer_note(nccl "not found (bench --against nccl)")
endif()

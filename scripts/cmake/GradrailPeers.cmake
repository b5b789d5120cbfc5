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

# CUDA kernels: compiled where a toolkit is found, unless switched off with -DGRADRAIL_WITH_CUDA=OFF or built with
# sanitizers. nvcc is called directly, because CMake 3.25 does not know how to ask CUDA 13 for C++20. Sets GRADRAIL_HAVE_CUDA.
option(GRADRAIL_WITH_CUDA "Compile CUDA kernels where a toolkit is found" ON)
set(GRADRAIL_CUDA_ARCHITECTURE "80" CACHE STRING "Oldest compute capability that CUDA kernels are compiled for")
set(GRADRAIL_HAVE_CUDA 0)
if(GRADRAIL_WITH_CUDA AND NOT GRADRAIL_SANITIZE)
  find_package(CUDAToolkit 12 QUIET)
  if(CUDAToolkit_FOUND)
    set(GRADRAIL_HAVE_CUDA 1)
    gradrail_note("CUDA" "found ${CUDAToolkit_VERSION} (kernels of codecs)")
  else()
    gradrail_note("CUDA" "not found (kernels of codecs)")
  endif()
else()
  gradrail_note("CUDA" "switched off (kernels of codecs)")
endif()

# gradrail_cuda(TARGET source...): compiles the sources into the target, with GRADRAIL_HAVE_CUDA set to 0 or 1.
function(gradrail_cuda target)
  target_compile_definitions(${target} PUBLIC GRADRAIL_HAVE_CUDA=${GRADRAIL_HAVE_CUDA})
  if(NOT GRADRAIL_HAVE_CUDA)
    return()
  endif()
  foreach(source IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "${source}" name)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${name}.o")
    # Host and device give the same bits: a product is rounded before it is added (-fmad=false).
    add_custom_command(
      OUTPUT "${object}"
      COMMAND "${CUDAToolkit_NVCC_EXECUTABLE}" -std=c++20 -O3 -fmad=false -arch=sm_${GRADRAIL_CUDA_ARCHITECTURE}
              -Xcompiler=-Wall,-Wextra,-fPIC "-I${CMAKE_SOURCE_DIR}" -MD -MF "${object}.d" -c
              "${CMAKE_CURRENT_SOURCE_DIR}/${source}" -o "${object}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${source}" DEPFILE "${object}.d"
      COMMENT "Building CUDA object ${source}" VERBATIM)
    target_sources(${target} PRIVATE "${object}")
    set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  endforeach()
  target_link_libraries(${target} PUBLIC CUDA::cudart_static)
endfunction()

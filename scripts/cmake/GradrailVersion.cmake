# build_info.cc, made again at every build, so that a record names the commit it was measured with.
set(GRADRAIL_BUILD_INFO "${CMAKE_BINARY_DIR}/generated/build_info.cc")
string(TOUPPER "${CMAKE_BUILD_TYPE}" build_type_upper)
add_custom_command(
  OUTPUT "${GRADRAIL_BUILD_INFO}.always" "${GRADRAIL_BUILD_INFO}"
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR} -DOUTPUT=${GRADRAIL_BUILD_INFO}
          -DVERSION=${PROJECT_VERSION} -DBUILD_TYPE=${CMAKE_BUILD_TYPE}
          "-DCOMPILER=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
          "-DFLAGS=${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type_upper}}" "-DSANITIZE=${GRADRAIL_SANITIZE}"
          -P "${CMAKE_SOURCE_DIR}/scripts/cmake/write_build_info.cmake"
  COMMENT "Describing this build"
  VERBATIM)

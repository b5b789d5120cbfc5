# gradrail_library(NAME folder... LINK libraries...): one static library from all sources of the given folders (not of
# their sub-folders), so that a new file needs no line anywhere.
function(gradrail_library name)
  cmake_parse_arguments(ARG "" "" "FOLDERS;LINK" ${ARGN})
  set(sources)
  foreach(folder IN LISTS ARG_FOLDERS)
    file(GLOB found CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cc")
    list(APPEND sources ${found})
  endforeach()
  if(sources)
    add_library(${name} STATIC ${sources})
    target_include_directories(${name} PUBLIC "${CMAKE_SOURCE_DIR}")
    target_link_libraries(${name} PUBLIC ${ARG_LINK})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE "${CMAKE_SOURCE_DIR}")
    target_link_libraries(${name} INTERFACE ${ARG_LINK})
  endif()
endfunction()

# gradrail_use(TARGET PART): compiles the target with GRADRAIL_HAVE_PART set to 0 or 1, and links the part if it was found.
function(gradrail_use target part)
  get_target_property(kind ${target} TYPE)
  set(scope PUBLIC)
  if(kind STREQUAL "INTERFACE_LIBRARY")
    set(scope INTERFACE)
  endif()
  target_compile_definitions(${target} ${scope} GRADRAIL_HAVE_${part}=${GRADRAIL_HAVE_${part}})
  if(GRADRAIL_HAVE_${part})
    target_link_libraries(${target} ${scope} PkgConfig::${part})
  endif()
endfunction()

# What tests know of the build.
function(gradrail_test_definitions target)
  get_property(absent GLOBAL PROPERTY GRADRAIL_ABSENT_TRANSPORTS)
  list(JOIN absent "," absent)
  target_compile_definitions(${target} PRIVATE
    GRADRAIL_BINARY="$<TARGET_FILE:gradrail>" GRADRAIL_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    GRADRAIL_HAVE_PMIX=${GRADRAIL_HAVE_PMIX} GRADRAIL_MPIRUN="${GRADRAIL_MPIRUN}"
    GRADRAIL_ABSENT_TRANSPORTS="${absent}")
endfunction()

# gradrail_tests(NAME folder LINK libraries... [SERIAL]): one GoogleTest program from all *_test.cc (and other *.cc) of
# the folder; files named NAME_* are left out where the transport NAME is absent. SERIAL: its tests start many processes or measure resources, and run one at a time.
function(gradrail_tests name folder)
  cmake_parse_arguments(ARG "SERIAL" "TIMEOUT" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cc")
  get_property(absent GLOBAL PROPERTY GRADRAIL_ABSENT_TRANSPORTS)
  foreach(transport IN LISTS absent)
    list(FILTER sources EXCLUDE REGEX "/${transport}_[^/]*$")
  endforeach()
  if(NOT sources)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(GRADRAIL_SANITIZE)
    math(EXPR ARG_TIMEOUT "4 * ${ARG_TIMEOUT}")  # everything takes several times as long
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest GTest::gmock GTest::gtest_main)
  gradrail_test_definitions(${name})
  add_dependencies(${name} gradrail)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 NO_PRETTY_VALUES PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS ${folder}
                       $<$<BOOL:${ARG_SERIAL}>:RUN_SERIAL> $<$<BOOL:${ARG_SERIAL}>:TRUE>)
endfunction()

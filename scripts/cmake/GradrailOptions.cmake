option(GRADRAIL_TESTS "Build the tests (needs GoogleTest)" ON)
option(GRADRAIL_WERROR "Treat warnings as errors" ON)
set(GRADRAIL_SANITIZE "" CACHE STRING "Sanitizers to build with: empty, 'address,undefined' or 'thread'")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# A compiler cache is used where one is installed, and never asked for.
find_program(GRADRAIL_CCACHE ccache)
mark_as_advanced(GRADRAIL_CCACHE)
if(GRADRAIL_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${GRADRAIL_CCACHE}")
endif()

add_compile_options(-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -fno-math-errno)
if(GRADRAIL_WERROR)
  add_compile_options(-Werror)
endif()
if(GRADRAIL_SANITIZE)
  # -O1 and line numbers only: half the time to compile, and reports that name the right frames.
  add_compile_options(-fsanitize=${GRADRAIL_SANITIZE} -fno-omit-frame-pointer -O1 -g1)
  add_link_options(-fsanitize=${GRADRAIL_SANITIZE})
  if(GRADRAIL_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)  # what it finds ends the program, so that a test fails
  endif()
endif()

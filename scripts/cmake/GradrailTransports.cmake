# The libraries of transports/: one a folder, linked into gradrail_transports. A folder needs nothing here and nothing in
# transports/CMakeLists.txt. One that links a library has a CMakeLists.txt of its own, which says what it needs:
#
#   gradrail_transport(verbs PART VERBS MODULES libibverbs PACKAGES libibverbs-dev FOR "RDMA devices")
#
# Where that is not found, or switched off with -DGRADRAIL_WITH_VERBS=OFF, the folder is not built, and in the place of
# its TransportKind stands one whose available() says why.

# The source of a TransportKind k_NAME_transport that refuses with the sentence; its path in `out`.
function(gradrail_absent_transport_source out name purpose reason)
  set(source "${CMAKE_BINARY_DIR}/generated/absent_transports/${name}.cc")
  configure_file("${CMAKE_SOURCE_DIR}/scripts/cmake/absent_transport.cc.in" "${source}" @ONLY)
  set(${out} "${source}" PARENT_SCOPE)
endfunction()

# The transport of a folder whose CMakeLists.txt found, by whatever means, that it cannot be built.
function(gradrail_absent_transport name purpose reason)
  gradrail_absent_transport_source(source ${name} "${purpose}" "${reason}")
  target_sources(gradrail_transports PRIVATE "${source}")
  set_property(GLOBAL APPEND PROPERTY GRADRAIL_ABSENT_TRANSPORTS ${name})
endfunction()

# The transport of the folder transports/NAME. LINK: libraries that are there in any case.
function(gradrail_transport name)
  cmake_parse_arguments(ARG "" "PART;FOR" "MODULES;PACKAGES;LINK" ${ARGN})
  if(ARG_PART)
    list(JOIN ARG_MODULES " and " modules)
    list(JOIN ARG_PACKAGES " and " packages)
    gradrail_optional(${ARG_PART} "${ARG_MODULES}" "${ARG_FOR}")
    if(NOT GRADRAIL_WITH_${ARG_PART})
      gradrail_absent_transport(${name} "${ARG_FOR}"
        "transport ${name}: built without ${modules}; configure without -DGRADRAIL_WITH_${ARG_PART}=OFF and build again")
      return()
    elseif(NOT GRADRAIL_HAVE_${ARG_PART})
      gradrail_absent_transport(${name} "${ARG_FOR}"
        "transport ${name}: built without ${modules}; install ${packages} and build again")
      return()
    endif()
    list(APPEND ARG_LINK PkgConfig::${ARG_PART})
  endif()
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/transports/${name}/*.cc")
  add_library(gradrail_transport_${name} STATIC ${sources})
  target_include_directories(gradrail_transport_${name} PUBLIC "${CMAKE_SOURCE_DIR}")
  target_link_libraries(gradrail_transport_${name} PUBLIC gradrail_transport ${ARG_LINK})
  target_link_libraries(gradrail_transports PUBLIC gradrail_transport_${name})
endfunction()

# Every folder with sources, but those named.
macro(gradrail_find_transports)
  cmake_parse_arguments(FIND "" "" "EXCEPT" ${ARGN})
  file(GLOB FIND_SOURCES CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}/*/*.cc")
  list(TRANSFORM FIND_SOURCES REPLACE "/[^/]*$" "")
  list(REMOVE_DUPLICATES FIND_SOURCES)
  list(REMOVE_ITEM FIND_SOURCES ${FIND_EXCEPT})
  foreach(folder IN LISTS FIND_SOURCES)
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${folder}/CMakeLists.txt")
      add_subdirectory(${folder})
    else()
      gradrail_transport(${folder})
    endif()
  endforeach()
endmacro()

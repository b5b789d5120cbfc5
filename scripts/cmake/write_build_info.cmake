# Run at build time by GradrailVersion.cmake.
execute_process(COMMAND git -C "${SOURCE_DIR}" rev-parse --short=12 HEAD
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "unknown")
else()
  execute_process(COMMAND git -C "${SOURCE_DIR}" status --porcelain --untracked-files=no
                  OUTPUT_VARIABLE changes OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(changes)
    string(APPEND commit "-modified")
  endif()
endif()
string(STRIP "${FLAGS}" FLAGS)
file(WRITE "${OUTPUT}.new" "#include \"transports/base/build_info.h\"\n
namespace gradrail {
BuildInfo build_info() {
  return {\"${VERSION}\", \"${commit}\", \"${BUILD_TYPE}\", \"${COMPILER}\", \"${FLAGS}\", \"${SANITIZE}\"};
}
}  // namespace gradrail
")
file(COPY_FILE "${OUTPUT}.new" "${OUTPUT}" ONLY_IF_DIFFERENT)

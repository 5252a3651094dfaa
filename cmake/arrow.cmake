# Arrow, Flight and Parquet from the wheel of pyarrow: Debian has no package of them. The interpreter
# that has pyarrow tells where they are; without it what needs them is left out.

set(UMBEL_DATA_PYTHON ${UMBEL_ROOT}/.venv-data/bin/python CACHE FILEPATH
  "Python with the pyarrow to link against (scripts/bootstrap data)")

# Sets UMBEL_ARROW to whether umbel_arrow, a library to link with, is there.
function(umbel_find_arrow)
  set(UMBEL_ARROW FALSE PARENT_SCOPE)
  if(NOT EXISTS ${UMBEL_DATA_PYTHON})
    message(STATUS "umbel-dataserver is left out: there is no ${UMBEL_DATA_PYTHON}; "
      "`scripts/bootstrap data` makes it")
    return()
  endif()
  execute_process(
    COMMAND ${UMBEL_DATA_PYTHON} -c
      "import pyarrow as p; print(p.get_include(), p.get_library_dirs()[0], p.cpp_version, sep=';')"
    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_VARIABLE problem
    RESULT_VARIABLE failed)
  if(failed)
    message(STATUS "umbel-dataserver is left out: ${UMBEL_DATA_PYTHON} has no pyarrow: ${problem}")
    return()
  endif()
  list(GET found 0 include)
  list(GET found 1 folder)
  list(GET found 2 version)
  add_library(umbel_arrow INTERFACE)
  target_include_directories(umbel_arrow SYSTEM INTERFACE ${include})
  foreach(name arrow_flight parquet arrow)
    # The wheel has no names without a version.
    file(GLOB file ${folder}/lib${name}.so.*00)
    if(NOT file)
      message(STATUS "umbel-dataserver is left out: no lib${name}.so in ${folder}")
      return()
    endif()
    target_link_libraries(umbel_arrow INTERFACE ${file})
  endforeach()
  target_link_options(umbel_arrow INTERFACE -Wl,-rpath,${folder})
  message(STATUS "Arrow ${version} from ${folder}")
  set(UMBEL_ARROW TRUE PARENT_SCOPE)
endfunction()

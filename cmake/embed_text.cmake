# cmake -DOUT=file.cc -DFROM=file -DHEADER=room/x.h -DROOM=room -DNAME=Text -P embed_text.cmake
# The file as one string: std::string_view umbel::ROOM::NAME().
file(READ ${FROM} text HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${text}")
file(WRITE ${OUT} "#include \"${HEADER}\"\n\nnamespace umbel::${ROOM} {\n\n"
  "constexpr char kText[] = {${bytes}'\\0'};\n\n"
  "std::string_view ${NAME}() { return {kText, sizeof kText - 1}; }\n\n"
  "}  // namespace umbel::${ROOM}\n")

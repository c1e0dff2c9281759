# Included where llama.cpp's own build begins: the Python package asks for a library of its command line tools that it
# never uses, half of all there is to compile.
set(LLAMA_BUILD_COMMON OFF)

// How libllama cuts text into words before it looks for tokens: by regular expressions, with `std::regex`, which goes one call deeper for each character of
// a match, and starts anew at each blank of a long row. words.cpp compiles libllama's unicode.cpp with another engine in its place.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Takes the next word's length, in characters.
typedef void (*ggml_sys_take_word)(void * to, size_t length);

// Cuts the parts of a text (their lengths, in characters) into what matches `regex` and what lies between, and gives each piece's length to `take`.
// `wide`: whether the characters are Unicode's; otherwise each is a byte. Whether it could be done.
typedef bool (*ggml_sys_cut)(const uint32_t * regex, size_t n_regex, const uint32_t * text, const size_t * parts, size_t n_parts, bool wide,
    ggml_sys_take_word take, void * to);

// Sets the engine; without one, `std::regex` is used. To be called before there are threads that tokenize.
void ggml_sys_set_cut(ggml_sys_cut cut);

// For tests: what `std::regex` makes of it.
bool ggml_sys_cut_std(const uint32_t * regex, size_t n_regex, const uint32_t * text, const size_t * parts, size_t n_parts, bool wide,
    ggml_sys_take_word take, void * to);

#ifdef __cplusplus
}
#endif

// See words.h. libllama's own file is compiled here, with functions of ours for its template: where both fit a call, C++ prefers what is no template. The linker
// finds these symbols before those of libllama's archive, whose object of the same name it then has no reason to take.
#include "words.h"

#include <stdexcept>
#include <string>
#include <vector>

static std::vector<size_t> unicode_regex_split_stl(const std::string & text, const std::string & regex, const std::vector<size_t> & offsets);
static std::vector<size_t> unicode_regex_split_stl(const std::wstring & text, const std::wstring & regex, const std::vector<size_t> & offsets);

#include "unicode.cpp"

static ggml_sys_cut engine = nullptr;

void ggml_sys_set_cut(ggml_sys_cut cut) {
    engine = cut;
}

static void push(void * to, size_t length) {
    static_cast<std::vector<size_t> *>(to)->push_back(length);
}

template <typename CharT>
static std::vector<uint32_t> numbers(const std::basic_string<CharT> & text) {
    using Unsigned = typename std::make_unsigned<CharT>::type;
    std::vector<uint32_t> numbers;
    numbers.reserve(text.size());
    for (CharT c : text) {
        numbers.push_back(static_cast<Unsigned>(c));
    }
    return numbers;
}

template <typename CharT>
static std::vector<size_t> cut(const std::basic_string<CharT> & text, const std::basic_string<CharT> & regex, const std::vector<size_t> & offsets) {
    if (!engine) {
        return unicode_regex_split_stl<CharT>(text, regex, offsets);
    }
    std::vector<size_t> words;
    const auto pattern = numbers(regex);
    const auto letters = numbers(text);
    if (!engine(pattern.data(), pattern.size(), letters.data(), offsets.data(), offsets.size(), sizeof(CharT) > 1, push, &words)) {
        throw std::runtime_error("the text cannot be cut into words");
    }
    return words;
}

static std::vector<size_t> unicode_regex_split_stl(const std::string & text, const std::string & regex, const std::vector<size_t> & offsets) {
    return cut(text, regex, offsets);
}

static std::vector<size_t> unicode_regex_split_stl(const std::wstring & text, const std::wstring & regex, const std::vector<size_t> & offsets) {
    return cut(text, regex, offsets);
}

template <typename CharT>
static std::vector<size_t> by_std(const uint32_t * regex, size_t n_regex, const uint32_t * text, const size_t * parts, size_t n_parts) {
    const std::vector<size_t> offsets(parts, parts + n_parts);
    size_t n = 0;
    for (size_t part : offsets) {
        n += part;
    }
    return unicode_regex_split_stl<CharT>(std::basic_string<CharT>(text, text + n), std::basic_string<CharT>(regex, regex + n_regex), offsets);
}

bool ggml_sys_cut_std(const uint32_t * regex, size_t n_regex, const uint32_t * text, const size_t * parts, size_t n_parts, bool wide,
    ggml_sys_take_word take, void * to) {
    try {
        const auto words = wide ? by_std<wchar_t>(regex, n_regex, text, parts, n_parts) : by_std<char>(regex, n_regex, text, parts, n_parts);
        for (size_t word : words) {
            take(to, word);
        }
        return true;
    } catch (...) {
        return false;
    }
}

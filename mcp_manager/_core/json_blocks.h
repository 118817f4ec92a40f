/* Stepping over a JSON object or array 64 bytes at a time, in strings and out of them, without reading its grammar.

   The method is that of G. Langdale and D. Lemire, "Parsing Gigabytes of JSON per Second", VLDB Journal 28 (2019):
   bit masks of quotes, backslashes and brackets, one bit a byte; UTF-8 is judged as by J. Keiser and D. Lemire,
   "Validating UTF-8 In Less Than One Instruction Per Byte", Software: Practice and Experience 51 (2021).

   Here are the parts that differ between instruction sets; json_block_scan.h is the scan itself, included once for
   each of them. Elsewhere the portable reading of json_text.pxd does the same, byte by byte; it also tells the reason
   and the place of whatever is refused here. */

#ifndef MCP_MANAGER_JSON_BLOCKS_H
#define MCP_MANAGER_JSON_BLOCKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define JSON_DEPTH_LIMIT 4096

/* What a byte is outside strings: 0 if JSON has none such there. */
#define JSON_PLAIN 1
#define JSON_BRACKET 2
#define JSON_QUOTE 4

static const uint8_t json_outside[256] = {
    ['\t'] = JSON_PLAIN, ['\n'] = JSON_PLAIN, ['\r'] = JSON_PLAIN, [' '] = JSON_PLAIN, [','] = JSON_PLAIN,
    [':'] = JSON_PLAIN, ['+'] = JSON_PLAIN, ['-'] = JSON_PLAIN, ['.'] = JSON_PLAIN, ['E'] = JSON_PLAIN,
    ['0'] = JSON_PLAIN, ['1'] = JSON_PLAIN, ['2'] = JSON_PLAIN, ['3'] = JSON_PLAIN, ['4'] = JSON_PLAIN,
    ['5'] = JSON_PLAIN, ['6'] = JSON_PLAIN, ['7'] = JSON_PLAIN, ['8'] = JSON_PLAIN, ['9'] = JSON_PLAIN,
    /* The letters of true, false, null and of exponents. */
    ['a'] = JSON_PLAIN, ['e'] = JSON_PLAIN, ['f'] = JSON_PLAIN, ['l'] = JSON_PLAIN, ['n'] = JSON_PLAIN,
    ['r'] = JSON_PLAIN, ['s'] = JSON_PLAIN, ['t'] = JSON_PLAIN, ['u'] = JSON_PLAIN,
    ['{'] = JSON_BRACKET, ['}'] = JSON_BRACKET, ['['] = JSON_BRACKET, [']'] = JSON_BRACKET, ['"'] = JSON_QUOTE,
};

/* How many of the next eight bytes are printable ASCII without quote and backslash. A byte's test may be disturbed only
   by a hit below it, so the lowest hit is exact ("Determine if a word has a byte less than n / equal to n", Bit
   Twiddling Hacks, S. E. Anderson). */
static inline int json_plain_prefix(const uint8_t *text) {
#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t ones = 0x0101010101010101ULL, highs = 0x8080808080808080ULL;
    uint64_t word, quotes, slashes, hits;
    memcpy(&word, text, 8);
    quotes = word ^ (ones * 0x22);
    slashes = word ^ (ones * 0x5C);
    hits = (word | ((word - ones * 0x20) & ~word) | ((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes))
           & highs;
    return hits ? __builtin_ctzll(hits) >> 3 : 8;
#else
    int at = 0;
    while (at < 8 && text[at] >= 0x20 && text[at] < 0x80 && text[at] != 0x22 && text[at] != 0x5C) at++;
    return at;
#endif
}

enum json_path { JSON_PORTABLE, JSON_AVX2, JSON_AVX512 };

#if defined(__GNUC__) && defined(__x86_64__)

#include <immintrin.h>

/* Bit i is about byte i of 64. "controls" are below 0x20, "foreign" bytes have no place outside strings, "high" ones
   are beyond ASCII. Of "opens" and "objects" only the bits that are brackets mean something. */
typedef struct {
    uint64_t quotes, slashes, controls, foreign, brackets, opens, objects, high;
} json_masks;

/* The open brackets, one bit a level, 1 for an object: the innermost 64 or fewer in "top", its lowest bit innermost,
   those beneath in whole words. */
typedef struct {
    uint64_t top;
    int level;
    int beneath;
    uint64_t words[JSON_DEPTH_LIMIT / 64];
} json_nesting;

#define JSON_GOES_ON 64
#define JSON_REFUSED (-1)

/* Open and close a block's brackets one by one; return the place of the one that ends the value, if there is one. */
static int json_walk(json_nesting *nesting, uint64_t brackets, uint64_t opens, uint64_t objects, int max_depth) {
    for (; brackets; brackets &= brackets - 1) {
        int at = __builtin_ctzll(brackets);
        uint64_t object = objects >> at & 1;
        if (opens >> at & 1) {
            if (nesting->beneath + nesting->level >= max_depth) return JSON_REFUSED;
            if (nesting->level == 64) {
                nesting->words[nesting->beneath >> 6] = nesting->top;
                nesting->beneath += 64;
                nesting->level = 0;
            }
            nesting->top = nesting->top << 1 | object;
            nesting->level++;
            continue;
        }
        if ((nesting->top & 1) != object) return JSON_REFUSED;
        nesting->top >>= 1;
        if (--nesting->level == 0) {
            if (nesting->beneath == 0) return at;
            nesting->beneath -= 64;
            nesting->top = nesting->words[nesting->beneath >> 6];
            nesting->level = 64;
        }
    }
    return JSON_GOES_ON;
}

/* What up to four brackets in a row do to the nesting once the pairs among them are taken out: they close so many
   levels of these kinds, then open so many of those. Four that hold a pair of two kinds close more levels than the
   quick way ever has, which leaves them to json_walk. */
typedef struct {
    uint8_t closes, closed_kinds, opens, opened_kinds;
} json_quad;

#define JSON_QUICK_LEVELS 60
#define JSON_TOO_MANY 63

/* By kinds << 5 | 1 << count | opens, the first bracket in the lowest bit. */
static json_quad json_quads[512];

static void json_fill_quads(void) {
    for (int count = 0; count <= 4; count++)
        for (int opens = 0; opens < 1 << count; opens++)
            for (int kinds = 0; kinds < 16; kinds++) {
                json_quad quad = {0, 0, 0, 0};
                for (int at = 0; at < count && quad.closes != JSON_TOO_MANY; at++) {
                    uint8_t kind = kinds >> at & 1;
                    if (opens >> at & 1) {
                        quad.opened_kinds = (uint8_t) (quad.opened_kinds << 1 | kind);
                        quad.opens++;
                    } else if (!quad.opens) {
                        quad.closed_kinds = (uint8_t) (quad.closed_kinds | kind << quad.closes);
                        quad.closes++;
                    } else if ((quad.opened_kinds & 1) == kind) {
                        quad.opened_kinds >>= 1;
                        quad.opens--;
                    } else {
                        quad.closes = JSON_TOO_MANY;
                    }
                }
                json_quads[kinds << 5 | 1 << count | opens] = quad;
            }
}

/* The bytes that a backslash takes the meaning from; "escape" is whether it is so with the first byte of this block,
   then of the next. By addition, runs of backslashes carry through to the byte after them (J. Keiser, in simdjson). */
static inline uint64_t json_escaped(uint64_t slashes, uint64_t *escape) {
    const uint64_t even = 0x5555555555555555ULL;
    uint64_t follows, sequences;
    slashes &= ~*escape;
    follows = slashes << 1 | *escape;
    *escape = __builtin_add_overflow(slashes & ~even & ~follows, slashes, &sequences);
    return (even ^ (sequences << 1)) & follows;
}

/* The last block of the text is copied, so that nothing behind the text is read; spaces are well anywhere in it. The
   four bytes before it go with it, for the sake of UTF-8. */
static inline const uint8_t *json_padded(uint8_t *room, const uint8_t *block, ptrdiff_t size) {
    memset(room + 4, ' ', 64);
    memcpy(room, block - 4, 4);
    memcpy(room + 4, block, (size_t) size);
    return room + 4;
}

#define JSON_ON_AVX2 __attribute__((target("avx2,pclmul,bmi,bmi2,popcnt")))
#define JSON_ON_AVX512 \
    __attribute__((target("avx2,pclmul,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi")))

/* Keiser and Lemire's three look-ups: every bit is one way for a byte and the one before it to be wrong together. */
#define JSON_TOO_SHORT 0x01
#define JSON_TOO_LONG 0x02
#define JSON_OVERLONG_3 0x04
#define JSON_TOO_LARGE 0x08
#define JSON_SURROGATE 0x10
#define JSON_OVERLONG_2 0x20
#define JSON_TOO_LARGE_1000 0x40
#define JSON_OVERLONG_4 0x40
#define JSON_TWO_CONTINUATIONS ((char) 0x80)
#define JSON_CARRY (JSON_TOO_SHORT | JSON_TOO_LONG | JSON_TWO_CONTINUATIONS)
#define JSON_ABOVE (JSON_CARRY | JSON_TOO_LARGE | JSON_TOO_LARGE_1000)
#define JSON_ANY_SECOND (JSON_TOO_LONG | JSON_OVERLONG_2 | JSON_TWO_CONTINUATIONS)

#define JSON_TWICE(...) _mm256_setr_epi8(__VA_ARGS__, __VA_ARGS__)
#define JSON_AFTER_HIGH JSON_TWICE( \
    JSON_TOO_LONG, JSON_TOO_LONG, JSON_TOO_LONG, JSON_TOO_LONG, \
    JSON_TOO_LONG, JSON_TOO_LONG, JSON_TOO_LONG, JSON_TOO_LONG, \
    JSON_TWO_CONTINUATIONS, JSON_TWO_CONTINUATIONS, JSON_TWO_CONTINUATIONS, JSON_TWO_CONTINUATIONS, \
    JSON_TOO_SHORT | JSON_OVERLONG_2, JSON_TOO_SHORT, JSON_TOO_SHORT | JSON_OVERLONG_3 | JSON_SURROGATE, \
    JSON_TOO_SHORT | JSON_TOO_LARGE | JSON_TOO_LARGE_1000 | JSON_OVERLONG_4)
#define JSON_AFTER_LOW JSON_TWICE( \
    JSON_CARRY | JSON_OVERLONG_3 | JSON_OVERLONG_2 | JSON_OVERLONG_4, JSON_CARRY | JSON_OVERLONG_2, \
    JSON_CARRY, JSON_CARRY, JSON_CARRY | JSON_TOO_LARGE, JSON_ABOVE, JSON_ABOVE, JSON_ABOVE, \
    JSON_ABOVE, JSON_ABOVE, JSON_ABOVE, JSON_ABOVE, JSON_ABOVE, JSON_ABOVE | JSON_SURROGATE, JSON_ABOVE, JSON_ABOVE)
#define JSON_IS_HIGH JSON_TWICE( \
    JSON_TOO_SHORT, JSON_TOO_SHORT, JSON_TOO_SHORT, JSON_TOO_SHORT, \
    JSON_TOO_SHORT, JSON_TOO_SHORT, JSON_TOO_SHORT, JSON_TOO_SHORT, \
    JSON_ANY_SECOND | JSON_OVERLONG_3 | JSON_TOO_LARGE_1000 | JSON_OVERLONG_4, \
    JSON_ANY_SECOND | JSON_OVERLONG_3 | JSON_TOO_LARGE, \
    JSON_ANY_SECOND | JSON_SURROGATE | JSON_TOO_LARGE, JSON_ANY_SECOND | JSON_SURROGATE | JSON_TOO_LARGE, \
    JSON_TOO_SHORT, JSON_TOO_SHORT, JSON_TOO_SHORT, JSON_TOO_SHORT)

/* Not zero where 32 bytes are no UTF-8; the three before them are looked at, and a sequence that they leave unfinished
   is for the next 32 to complain of. */
static inline JSON_ON_AVX2 __m256i json_utf8_errors(const uint8_t *text) {
    const __m256i low = _mm256_set1_epi8(0x0F);
    __m256i here = _mm256_loadu_si256((const __m256i *) text);
    __m256i one_back = _mm256_loadu_si256((const __m256i *) (text - 1));
    __m256i two_back = _mm256_loadu_si256((const __m256i *) (text - 2));
    __m256i three_back = _mm256_loadu_si256((const __m256i *) (text - 3));
    __m256i after_high = _mm256_shuffle_epi8(JSON_AFTER_HIGH, _mm256_and_si256(_mm256_srli_epi16(one_back, 4), low));
    __m256i after_low = _mm256_shuffle_epi8(JSON_AFTER_LOW, _mm256_and_si256(one_back, low));
    __m256i is_high = _mm256_shuffle_epi8(JSON_IS_HIGH, _mm256_and_si256(_mm256_srli_epi16(here, 4), low));
    __m256i errors = _mm256_and_si256(_mm256_and_si256(after_high, after_low), is_high);
    /* Third and fourth bytes of a sequence are continuations after a continuation, and only they. */
    __m256i third = _mm256_subs_epu8(two_back, _mm256_set1_epi8(0xE0 - 0x80));
    __m256i fourth = _mm256_subs_epu8(three_back, _mm256_set1_epi8(0xF0 - 0x80));
    __m256i expected = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char) 0x80));
    return _mm256_xor_si256(expected, errors);
}

static inline JSON_ON_AVX2 int json_is_utf8(const uint8_t *block) {
    __m256i errors = _mm256_or_si256(json_utf8_errors(block), json_utf8_errors(block + 32));
    return _mm256_testz_si256(errors, errors);
}

static inline JSON_ON_AVX2 uint64_t json_prefix_xor(uint64_t bits) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long) bits), _mm_set1_epi8((char) 0xFF), 0);
    return (uint64_t) _mm_cvtsi128_si64(product);
}

static inline JSON_ON_AVX2 uint64_t json_bits_avx2(__m256i first, __m256i second) {
    return (uint32_t) _mm256_movemask_epi8(first) | (uint64_t) (uint32_t) _mm256_movemask_epi8(second) << 32;
}

/* A class of bytes is a bit that the look-ups by both halves of a byte have in common: the highest one for brackets,
   another for each upper half that has allowed bytes beside them. Bytes beyond ASCII are looked up as 0. */
static inline JSON_ON_AVX2 __m256i json_classes_avx2(__m256i bytes) {
    const __m256i lower = JSON_TWICE(
        0x06, 0x14, 0x26, 0x24, 0x24, 0x3C, 0x14, 0x04, 0x04, 0x05, 0x05, (char) 0x82, 0x12, (char) 0x83, 0x12, 0);
    const __m256i upper = JSON_TWICE(0x01, 0, 0x02, 0x04, 0x08, (char) 0x80, 0x10, (char) 0xA0, 0, 0, 0, 0, 0, 0, 0, 0);
    __m256i halves = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0x0F));
    return _mm256_and_si256(_mm256_shuffle_epi8(lower, bytes), _mm256_shuffle_epi8(upper, halves));
}

static inline JSON_ON_AVX2 json_masks json_masks_avx2(const uint8_t *block) {
    const __m256i quote = _mm256_set1_epi8('"'), slash = _mm256_set1_epi8('\\'), last = _mm256_set1_epi8(0x1F);
    __m256i first = _mm256_loadu_si256((const __m256i *) block);
    __m256i second = _mm256_loadu_si256((const __m256i *) (block + 32));
    __m256i first_class = json_classes_avx2(first), second_class = json_classes_avx2(second);
    __m256i none = _mm256_setzero_si256();
    json_masks masks;
    masks.quotes = json_bits_avx2(_mm256_cmpeq_epi8(first, quote), _mm256_cmpeq_epi8(second, quote));
    masks.slashes = json_bits_avx2(_mm256_cmpeq_epi8(first, slash), _mm256_cmpeq_epi8(second, slash));
    masks.controls = json_bits_avx2(_mm256_cmpeq_epi8(_mm256_min_epu8(first, last), first),
                                    _mm256_cmpeq_epi8(_mm256_min_epu8(second, last), second));
    masks.foreign = json_bits_avx2(_mm256_cmpeq_epi8(first_class, none), _mm256_cmpeq_epi8(second_class, none));
    masks.brackets = json_bits_avx2(first_class, second_class);
    /* Bit 1 tells "{[" from "}]", bit 5 tells "{}" from "[]". */
    masks.opens = json_bits_avx2(_mm256_slli_epi16(first, 6), _mm256_slli_epi16(second, 6));
    masks.objects = json_bits_avx2(_mm256_slli_epi16(first, 2), _mm256_slli_epi16(second, 2));
    masks.high = json_bits_avx2(first, second);
    return masks;
}

/* Whether 64 bytes in a string neither end it nor escape anything nor are controls; their bits beyond ASCII. */
static inline JSON_ON_AVX2 int json_is_text_avx2(const uint8_t *block, uint64_t *high) {
    const __m256i quote = _mm256_set1_epi8('"'), slash = _mm256_set1_epi8('\\'), last = _mm256_set1_epi8(0x1F);
    __m256i first = _mm256_loadu_si256((const __m256i *) block);
    __m256i second = _mm256_loadu_si256((const __m256i *) (block + 32));
    __m256i least = _mm256_min_epu8(first, second);
    __m256i hits = _mm256_cmpeq_epi8(_mm256_min_epu8(least, last), least);
    hits = _mm256_or_si256(hits, _mm256_or_si256(_mm256_cmpeq_epi8(first, quote), _mm256_cmpeq_epi8(second, quote)));
    hits = _mm256_or_si256(hits, _mm256_or_si256(_mm256_cmpeq_epi8(first, slash), _mm256_cmpeq_epi8(second, slash)));
    *high = json_bits_avx2(first, second);
    return _mm256_testz_si256(hits, hits);
}

static inline JSON_ON_AVX512 json_masks json_masks_avx512(const uint8_t *block) {
    __m512i bytes = _mm512_loadu_si512(block);
    /* Looked up by seven bits; bytes beyond ASCII become foreign below. */
    __m512i classes = _mm512_permutex2var_epi8(
        _mm512_loadu_si512(json_outside), bytes, _mm512_loadu_si512(json_outside + 64));
    json_masks masks;
    masks.high = _mm512_movepi8_mask(bytes);
    masks.quotes = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('"'));
    masks.slashes = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\\'));
    masks.controls = _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(' '));
    masks.foreign = _mm512_testn_epi8_mask(classes, classes) | masks.high;
    masks.brackets = _mm512_test_epi8_mask(classes, _mm512_set1_epi8(JSON_BRACKET));
    masks.opens = _mm512_test_epi8_mask(bytes, _mm512_set1_epi8(0x02));
    masks.objects = _mm512_test_epi8_mask(bytes, _mm512_set1_epi8(0x20));
    return masks;
}

static inline JSON_ON_AVX512 int json_is_text_avx512(const uint8_t *block, uint64_t *high) {
    __m512i bytes = _mm512_loadu_si512(block);
    *high = _mm512_movepi8_mask(bytes);
    return !(_mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('"'))
             | _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\\'))
             | _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(' ')));
}

#define JSON_TARGET JSON_ON_AVX2
#define JSON_NAMED(name) name##_avx2
#include "json_block_scan.h"
#undef JSON_TARGET
#undef JSON_NAMED

#define JSON_TARGET JSON_ON_AVX512
#define JSON_NAMED(name) name##_avx512
#include "json_block_scan.h"
#undef JSON_TARGET
#undef JSON_NAMED

static int json_path_is_there(int path) {
    __builtin_cpu_init();
    if (path == JSON_PORTABLE) return 1;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("bmi")
        || !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt"))
        return 0;
    if (path == JSON_AVX2) return 1;
    return path == JSON_AVX512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
           && __builtin_cpu_supports("avx512vbmi");
}

/* The end of the object or array that opens at "at", or -1 if it is refused. Wants four bytes before it. */
static inline ptrdiff_t json_skip_blocks(int path, const uint8_t *text, ptrdiff_t at, ptrdiff_t end, int max_depth) {
    return path == JSON_AVX512 ? json_scan_avx512(text, at, end, max_depth) : json_scan_avx2(text, at, end, max_depth);
}

#else

static void json_fill_quads(void) {
}

static int json_path_is_there(int path) {
    return path == JSON_PORTABLE;
}

static inline ptrdiff_t json_skip_blocks(int path, const uint8_t *text, ptrdiff_t at, ptrdiff_t end, int max_depth) {
    (void) path, (void) text, (void) at, (void) end, (void) max_depth;
    return -1;
}

#endif

#endif

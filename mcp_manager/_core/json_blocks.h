/* Step over a JSON object or array 64 bytes at a time, inside and outside strings, without parsing its grammar.

   The method is that of G. Langdale and D. Lemire, "Parsing Gigabytes of JSON per Second", VLDB Journal 28 (2019): bit
   masks of quotes, backslashes and brackets, one bit per byte. UTF-8 is validated as by J. Keiser and D. Lemire,
   "Validating UTF-8 In Less Than One Instruction Per Byte", Software: Practice and Experience 51 (2021).

   This file holds the parts that differ between instruction sets; json_block_scan.h is the scan itself, included once
   for each of them. On other machines the portable scan of json_text.pxd does the same byte by byte; it also finds the
   reason and the position of whatever is refused here. */

#ifndef MCP_MANAGER_JSON_BLOCKS_H
#define MCP_MANAGER_JSON_BLOCKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define JSON_INLINE static inline __attribute__((always_inline))
#define JSON_APART __attribute__((noinline))
#else
#define JSON_INLINE static inline
#endif

#define JSON_DEPTH_LIMIT 4096

/* Classes of a byte outside strings, then inside. */
#define JSON_BRACKET 0x01
#define JSON_QUOTE 0x02
#define JSON_FOREIGN 0x04
#define JSON_OPENS 0x08
#define JSON_OBJECT 0x10
#define JSON_SLASH 0x20
#define JSON_CONTROL 0x40

#define _ 0
#define N JSON_CONTROL
#define X JSON_FOREIGN
#define C (JSON_FOREIGN | JSON_CONTROL)
#define S (JSON_FOREIGN | JSON_SLASH)
#define Q JSON_QUOTE
#define O (JSON_BRACKET | JSON_OPENS | JSON_OBJECT)
#define P (JSON_BRACKET | JSON_OBJECT)
#define A (JSON_BRACKET | JSON_OPENS)
#define B JSON_BRACKET

static const uint8_t json_outside[128] = {
    C, C, C, C, C, C, C, C, C, N, N, C, C, N, C, C,
    C, C, C, C, C, C, C, C, C, C, C, C, C, C, C, C,
    _, X, Q, X, X, X, X, X, X, X, X, _, _, _, _, X,
    _, _, _, _, _, _, _, _, _, _, _, X, X, X, X, X,
    X, X, X, X, X, _, X, X, X, X, X, X, X, X, X, X,
    X, X, X, X, X, X, X, X, X, X, X, A, S, B, X, X,
    X, _, X, X, X, _, _, X, X, X, X, X, _, X, _, X,
    X, X, _, _, _, _, X, X, X, X, X, O, X, P, X, X,
};

#undef _
#undef N
#undef X
#undef C
#undef S
#undef Q
#undef O
#undef P
#undef A
#undef B

/* How many of the next eight bytes are printable ASCII, up to the first quote, backslash or other byte. Only a hit
   below a byte can disturb its test, so the lowest hit is exact ("Determine if a word has a byte less than n / equal to
   n", Bit Twiddling Hacks, S. E. Anderson). */
JSON_INLINE int json_plain_prefix(const uint8_t *text) {
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

/* Bit i stands for byte i of 64. "foreign" bytes are not allowed outside strings. "opens" and "objects" have a meaning
   only where "brackets" is set. "rare" is not zero if the block needs the masks of json_rare; until these are applied,
   non-ASCII bytes may have any of the bits. */
typedef struct {
    uint64_t quotes, foreign, brackets, opens, objects;
    uint64_t rare;
} json_masks;

/* "controls" are bytes below 0x20, "high" ones are not ASCII, "escaped" ones are escaped by a backslash; "rare" is for
   the json_place of the next block. */
typedef struct {
    uint64_t slashes, controls, high, escaped, rare;
} json_rare;

/* The position of a scan: the next block, and whether it begins inside a string (all bits). "rare" has which of the
   three bytes before it are not ASCII, whether its first byte is escaped, and whether anything before it was invalid
   UTF-8. */
typedef struct {
    ptrdiff_t at;
    uint64_t in_string, rare;
} json_place;

#define JSON_BEFORE 7
#define JSON_ESCAPE 8
#define JSON_WRONG 16

/* The open brackets, one bit per level, 1 for an object. "top" has the innermost 1 to 60, the innermost in its lowest
   bit, and a 1 above the outermost; "words" has the levels beneath, 32 per word. */
typedef struct {
    uint64_t top;
    int beneath;
    uint32_t words[JSON_DEPTH_LIMIT / 32];
} json_nesting;

#define JSON_TOP_LEVELS 60
/* How much to read bracket by bracket at first, in bytes; then how far to read before brackets are matched, in bytes
   and in brackets. */
#define JSON_SHORT 256
#define JSON_STRIDE 2048
#define JSON_ENOUGH 40
/* How much text to test at once, and how much to read block by block before that is tried, in bytes. */
#define JSON_LONG 256
#define JSON_PATIENCE 1024
/* What json_walk returns if not a position in the block. */
#define JSON_GOES_ON 64
#define JSON_REFUSED (-1)
/* What follows a part of the scan: a block of any kind, a rare one, one in a long text; nothing, because the value has
   ended or is invalid; a second, slower look at what was just read, which may be the end of the value or a fault. */
enum json_next { JSON_ON, JSON_ON_RARE, JSON_IN_TEXT, JSON_ENDED, JSON_NO, JSON_CRAWL };

JSON_INLINE int json_levels(const json_nesting *nesting) {
    return 63 - __builtin_clzll(nesting->top);
}

/* Open and close a block's brackets one by one; return the position of the one that ends the value, if any does. */
static int json_walk(json_nesting *nesting, uint64_t brackets, uint64_t opens, uint64_t objects, int max_depth) {
    int level = json_levels(nesting);
    for (; brackets; brackets &= brackets - 1) {
        int at = __builtin_ctzll(brackets);
        uint64_t object = objects >> at & 1;
        if (opens >> at & 1) {
            if (nesting->beneath + level >= max_depth) return JSON_REFUSED;
            if (level == JSON_TOP_LEVELS) {
                level -= 32;
                nesting->words[nesting->beneath >> 5] = (uint32_t) (nesting->top >> level);
                nesting->beneath += 32;
                nesting->top = (nesting->top & ((1ULL << level) - 1)) | 1ULL << level;
            }
            nesting->top = nesting->top << 1 | object;
            level++;
            continue;
        }
        if ((nesting->top & 1) != object) return JSON_REFUSED;
        nesting->top >>= 1;
        if (--level == 0) {
            if (nesting->beneath == 0) return at;
            nesting->beneath -= 32;
            nesting->top = 1ULL << 32 | nesting->words[nesting->beneath >> 5];
            level = 32;
        }
    }
    return JSON_GOES_ON;
}

/* Reverse the order of the lowest "size" bits. */
JSON_INLINE uint64_t json_reversed(uint64_t bits, int size) {
    bits = (bits >> 1 & 0x5555555555555555ULL) | (bits & 0x5555555555555555ULL) << 1;
    bits = (bits >> 2 & 0x3333333333333333ULL) | (bits & 0x3333333333333333ULL) << 2;
    bits = (bits >> 4 & 0x0F0F0F0F0F0F0F0FULL) | (bits & 0x0F0F0F0F0F0F0F0FULL) << 4;
    return size ? __builtin_bswap64(bits) >> (64 - size) : 0;
}

/* Find the bytes that a backslash escapes: in an addition, runs of backslashes carry into the byte after them (J.
   Keiser, in simdjson), which may be the first of the next block. "first" is whether the first byte of this block is
   escaped, and afterwards that of the next. */
JSON_INLINE uint64_t json_escaped(uint64_t slashes, uint64_t *first) {
    const uint64_t even = 0x5555555555555555ULL;
    uint64_t follows, sequences;
    slashes &= ~*first;
    follows = slashes << 1 | *first;
    *first = __builtin_add_overflow(slashes & ~even & ~follows, slashes, &sequences) ? 1 : 0;
    return (even ^ (sequences << 1)) & follows;
}

JSON_INLINE void json_escape(json_rare *masks, uint64_t before) {
    uint64_t first = before & JSON_ESCAPE ? 1 : 0;
    masks->escaped = json_escaped(masks->slashes, &first);
    masks->rare = (before & JSON_WRONG) | (first ? JSON_ESCAPE : 0) | masks->high >> 61;
}

/* Copy the last block of the text, so that nothing beyond the text is read, and pad it with spaces, which are valid
   anywhere in it. The four bytes before it are copied for the check of UTF-8. Copies of a fixed size need no call: if
   there are 64 bytes to copy, those before the block are copied as well. */
#define JSON_ROOM 192

JSON_INLINE const uint8_t *json_padded(uint8_t *room, const uint8_t *text, ptrdiff_t at, ptrdiff_t size) {
    uint8_t *block = room + 64;
    memcpy(block - 4, text + at - 4, 4);
    if (at + size >= 64)
        memcpy(block + size - 64, text + at + size - 64, 64);
    else
        memcpy(block, text + at, (size_t) size);
    memset(block + size, ' ', 64);
    return block;
}

/* AMD's processors before Zen 3 run pext in microcode, one step per bit, and are faster without strides. */
static int json_pext_is_slow = 0;

#define JSON_ON_AVX2 __attribute__((target("avx2,pclmul,bmi,bmi2,popcnt")))
#define JSON_ON_AVX512 \
    __attribute__((target("avx2,pclmul,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")))

/* The three look-ups of Keiser and Lemire: each bit is one way in which a byte and the one before it are invalid
   together. */
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

/* Not zero where 32 bytes are invalid UTF-8. The three bytes before them count as well; a sequence that the 32 bytes
   leave unfinished is an error of the next 32. */
JSON_INLINE JSON_ON_AVX2 __m256i json_utf8_errors(const uint8_t *text) {
    const __m256i low = _mm256_set1_epi8(0x0F);
    __m256i here = _mm256_loadu_si256((const __m256i *) text);
    __m256i one_back = _mm256_loadu_si256((const __m256i *) (text - 1));
    __m256i two_back = _mm256_loadu_si256((const __m256i *) (text - 2));
    __m256i three_back = _mm256_loadu_si256((const __m256i *) (text - 3));
    __m256i after_high = _mm256_shuffle_epi8(JSON_AFTER_HIGH, _mm256_and_si256(_mm256_srli_epi16(one_back, 4), low));
    __m256i after_low = _mm256_shuffle_epi8(JSON_AFTER_LOW, _mm256_and_si256(one_back, low));
    __m256i is_high = _mm256_shuffle_epi8(JSON_IS_HIGH, _mm256_and_si256(_mm256_srli_epi16(here, 4), low));
    __m256i errors = _mm256_and_si256(_mm256_and_si256(after_high, after_low), is_high);
    /* Only the third and fourth bytes of a sequence are continuations after a continuation. */
    __m256i third = _mm256_subs_epu8(two_back, _mm256_set1_epi8(0xE0 - 0x80));
    __m256i fourth = _mm256_subs_epu8(three_back, _mm256_set1_epi8(0xF0 - 0x80));
    __m256i expected = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char) 0x80));
    return _mm256_xor_si256(expected, errors);
}

JSON_INLINE JSON_ON_AVX2 int json_is_utf8(const uint8_t *block) {
    __m256i errors = _mm256_or_si256(json_utf8_errors(block), json_utf8_errors(block + 32));
    return _mm256_testz_si256(errors, errors);
}

JSON_INLINE JSON_ON_AVX2 uint64_t json_prefix_xor(uint64_t bits) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long) bits), _mm_set1_epi8((char) 0xFF), 0);
    return (uint64_t) _mm_cvtsi128_si64(product);
}

JSON_INLINE JSON_ON_AVX2 uint64_t json_bits_avx2(__m256i first, __m256i second) {
    return (uint32_t) _mm256_movemask_epi8(first) | (uint64_t) (uint32_t) _mm256_movemask_epi8(second) << 32;
}

/* A class of bytes is a bit that the look-ups by both halves of a byte have in common: the highest bit for brackets,
   another for each upper half that has further allowed bytes. Non-ASCII bytes are looked up as 0. */
JSON_INLINE JSON_ON_AVX2 __m256i json_classes_avx2(__m256i bytes) {
    const __m256i lower = JSON_TWICE(
        0x06, 0x14, 0x26, 0x24, 0x24, 0x3C, 0x14, 0x04, 0x04, 0x05, 0x05, (char) 0x82, 0x12, (char) 0x83, 0x12, 0);
    const __m256i upper = JSON_TWICE(0x01, 0, 0x02, 0x04, 0x08, (char) 0x80, 0x10, (char) 0xA0, 0, 0, 0, 0, 0, 0, 0, 0);
    __m256i halves = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0x0F));
    return _mm256_and_si256(_mm256_shuffle_epi8(lower, bytes), _mm256_shuffle_epi8(upper, halves));
}

/* Quotes, and brackets of arrays; bit 5 tells "[]" from "{}". */
JSON_INLINE JSON_ON_AVX2 __m256i json_arrays_avx2(__m256i bytes, __m256i classes) {
    __m256i arrays = _mm256_andnot_si256(_mm256_slli_epi16(bytes, 2), classes);
    return _mm256_or_si256(arrays, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('"')));
}

/* Foreign bytes, and closing brackets; bit 2 tells "}]" from "{[". */
JSON_INLINE JSON_ON_AVX2 __m256i json_closes_avx2(__m256i bytes, __m256i classes) {
    __m256i closes = _mm256_and_si256(_mm256_slli_epi16(bytes, 5), classes);
    return _mm256_or_si256(closes, _mm256_cmpeq_epi8(classes, _mm256_setzero_si256()));
}

/* Extracting bits from bytes costs most here: three extractions are enough for the five masks. */
JSON_INLINE JSON_ON_AVX2 json_masks json_masks_avx2(const uint8_t *block) {
    const __m256i slash = _mm256_set1_epi8('\\');
    __m256i first = _mm256_loadu_si256((const __m256i *) block);
    __m256i second = _mm256_loadu_si256((const __m256i *) (block + 32));
    __m256i first_class = json_classes_avx2(first), second_class = json_classes_avx2(second);
    /* As signed numbers, controls and non-ASCII bytes are below a space. */
    __m256i rare = _mm256_cmpgt_epi8(_mm256_set1_epi8(' '), _mm256_min_epi8(first, second));
    uint64_t arrays = json_bits_avx2(json_arrays_avx2(first, first_class), json_arrays_avx2(second, second_class));
    uint64_t closes = json_bits_avx2(json_closes_avx2(first, first_class), json_closes_avx2(second, second_class));
    json_masks masks;
    rare = _mm256_or_si256(rare, _mm256_or_si256(_mm256_cmpeq_epi8(first, slash), _mm256_cmpeq_epi8(second, slash)));
    masks.rare = (uint32_t) _mm256_movemask_epi8(rare);
    masks.brackets = json_bits_avx2(first_class, second_class);
    masks.quotes = arrays & ~masks.brackets;
    masks.foreign = closes & ~masks.brackets;
    masks.objects = ~arrays;
    masks.opens = ~closes;
    return masks;
}

JSON_INLINE JSON_ON_AVX2 json_rare json_rare_masks_avx2(const uint8_t *block) {
    const __m256i slash = _mm256_set1_epi8('\\'), last = _mm256_set1_epi8(0x1F);
    __m256i first = _mm256_loadu_si256((const __m256i *) block);
    __m256i second = _mm256_loadu_si256((const __m256i *) (block + 32));
    json_rare masks = {0, 0, 0, 0, 0};
    masks.slashes = json_bits_avx2(_mm256_cmpeq_epi8(first, slash), _mm256_cmpeq_epi8(second, slash));
    masks.controls = json_bits_avx2(_mm256_cmpeq_epi8(_mm256_min_epu8(first, last), first),
                                    _mm256_cmpeq_epi8(_mm256_min_epu8(second, last), second));
    masks.high = json_bits_avx2(first, second);
    return masks;
}

JSON_INLINE JSON_ON_AVX2 uint64_t json_quotes_avx2(const uint8_t *block) {
    const __m256i quote = _mm256_set1_epi8('"');
    return json_bits_avx2(_mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *) block), quote),
                          _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *) (block + 32)), quote));
}

/* Whether 64 bytes in a string hold no quote, backslash or control; "high" gets the bits of the non-ASCII ones. */
JSON_INLINE JSON_ON_AVX2 int json_is_text_avx2(const uint8_t *block, uint64_t *high) {
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

/* Whether JSON_LONG bytes in a string are ASCII without quotes and controls; "slashes" gets the backslashes of the last
   64. So many are tested at once because branching on a vector register takes longer than the tests. */
JSON_INLINE JSON_ON_AVX2 int json_is_plain(const uint8_t *blocks, uint64_t *slashes) {
    const __m256i quote = _mm256_set1_epi8('"'), slash = _mm256_set1_epi8('\\');
    const __m256i *last = (const __m256i *) (blocks + JSON_LONG - 64);
    __m256i least = quote, hits = _mm256_setzero_si256();
    int at;
    for (at = 0; at < JSON_LONG; at += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *) (blocks + at));
        least = _mm256_min_epi8(least, bytes);
        hits = _mm256_or_si256(hits, _mm256_cmpeq_epi8(bytes, quote));
    }
    *slashes = json_bits_avx2(_mm256_cmpeq_epi8(_mm256_loadu_si256(last), slash),
                              _mm256_cmpeq_epi8(_mm256_loadu_si256(last + 1), slash));
    /* As signed numbers, controls and non-ASCII bytes are below a space. */
    hits = _mm256_or_si256(hits, _mm256_cmpgt_epi8(_mm256_set1_epi8(' '), least));
    return _mm256_testz_si256(hits, hits);
}

/* Turn eight bits per byte into eight masks by two transpositions: of the bits of eight bytes, which is a
   multiplication with the unit matrix over GF(2), and of the bytes of eight words. */
JSON_INLINE JSON_ON_AVX512 json_masks json_masks_avx512(const uint8_t *block) {
    const __m512i backwards = _mm512_broadcast_i32x4(
        _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8));
    const __m512i unit = _mm512_set1_epi64((long long) 0x8040201008040201ULL);
    const __m512i first_bytes = _mm512_set1_epi64(0x3830282018100800LL);
    const __m512i columns = _mm512_add_epi8(first_bytes, _mm512_setr_epi64(
        0, 0x0101010101010101LL, 0x0202020202020202LL, 0x0303030303030303LL,
        0x0404040404040404LL, 0x0505050505050505LL, 0x0606060606060606LL, 0x0707070707070707LL));
    __m512i bytes = _mm512_loadu_si512(block);
    __m512i classes = _mm512_permutex2var_epi8(
        _mm512_loadu_si512(json_outside), bytes, _mm512_loadu_si512(json_outside + 64));
    uint64_t planes[8];
    json_masks masks;
    /* The look-up takes seven bits, so non-ASCII bytes get the classes of others: they are marked as rare, and
       json_read corrects that. */
    classes = _mm512_ternarylogic_epi32(classes, bytes, _mm512_set1_epi8((char) 0x80), 0xF8);
    classes = _mm512_gf2p8affine_epi64_epi8(unit, _mm512_shuffle_epi8(classes, backwards), 0);
    _mm512_storeu_si512(planes, _mm512_permutexvar_epi8(columns, classes));
    masks.brackets = planes[0];
    masks.quotes = planes[1];
    masks.foreign = planes[2];
    masks.opens = planes[3];
    masks.objects = planes[4];
    masks.rare = planes[5] | planes[6] | planes[7];
    return masks;
}

JSON_INLINE JSON_ON_AVX512 json_rare json_rare_masks_avx512(const uint8_t *block) {
    __m512i bytes = _mm512_loadu_si512(block);
    json_rare masks = {0, 0, 0, 0, 0};
    masks.slashes = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\\'));
    masks.controls = _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(' '));
    masks.high = _mm512_movepi8_mask(bytes);
    return masks;
}

JSON_INLINE JSON_ON_AVX512 uint64_t json_quotes_avx512(const uint8_t *block) {
    return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(block), _mm512_set1_epi8('"'));
}

JSON_INLINE JSON_ON_AVX512 int json_is_text_avx512(const uint8_t *block, uint64_t *high) {
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

static inline int json_path_is_there(int path) {
    __builtin_cpu_init();
    json_pext_is_slow = __builtin_cpu_is("znver1") || __builtin_cpu_is("znver2");
    if (path == JSON_PORTABLE) return 1;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("bmi")
        || !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt"))
        return 0;
    if (path == JSON_AVX2) return 1;
    return path == JSON_AVX512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
           && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni");
}

/* The end of the object or array that opens at "at", -1 if it is refused. At least four bytes must precede it. */
JSON_INLINE ptrdiff_t json_skip_blocks(int path, const uint8_t *text, ptrdiff_t at, ptrdiff_t end, int max_depth) {
    return path == JSON_AVX512 ? json_scan_avx512(text, at, end, max_depth) : json_scan_avx2(text, at, end, max_depth);
}

#else

static inline int json_path_is_there(int path) {
    return path == JSON_PORTABLE;
}

JSON_INLINE ptrdiff_t json_skip_blocks(int path, const uint8_t *text, ptrdiff_t at, ptrdiff_t end, int max_depth) {
    (void) path, (void) text, (void) at, (void) end, (void) max_depth;
    return -1;
}

#endif

#endif

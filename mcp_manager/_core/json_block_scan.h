/* The scan of json_blocks.h for one instruction set: JSON_TARGET is the attribute that asks for it, JSON_NAMED(name) a
   name of its own. Included more than once. */

/* Step over what is nothing but text, from within a string; return where it stops, or -1 if it is no UTF-8. "before"
   are the bits beyond ASCII of the three bytes before it, then of the three before its end. */
static inline JSON_TARGET ptrdiff_t JSON_NAMED(json_skip_text)(
    const uint8_t *text, ptrdiff_t at, ptrdiff_t end, uint64_t *before) {
    uint64_t high;
    for (; end - at >= 64 && JSON_NAMED(json_is_text)(text + at, &high); at += 64) {
        if ((high | *before) && !json_is_utf8(text + at)) return -1;
        *before = high >> 61;
    }
    return at;
}

/* Apply a block's brackets four at a time without a branch for each; return 0, with the nesting as it was, if the value
   ends here, if it is wrong, or if the levels leave "top": json_walk then does it. On processors whose pext is slow
   (AMD before Zen 3) this is still no slower than byte by byte. */
static inline JSON_TARGET int JSON_NAMED(json_run)(
    json_nesting *nesting, uint64_t brackets, uint64_t opens, uint64_t objects, int max_depth) {
    int room = max_depth - nesting->beneath, level = nesting->level, least = level;
    int count = (int) _mm_popcnt_u64(brackets), left = count;
    uint64_t top = nesting->top, wrong = 0;
    uint64_t open_run = _pext_u64(opens, brackets), kind_run = _pext_u64(objects, brackets);
    if (level + (int) _mm_popcnt_u64(open_run) > (room < JSON_QUICK_LEVELS ? room : JSON_QUICK_LEVELS)) return 0;
    do {
        for (int quads = 0; quads < 2; quads++) {
            unsigned one = 1U << (left < 4 ? left : 4);
            json_quad quad = json_quads[(kind_run & 15) << 5 | one | (open_run & 15)];
            wrong |= _bzhi_u64(top ^ quad.closed_kinds, quad.closes);
            level -= quad.closes;
            least = level < least ? level : least;
            top = top >> quad.closes << quad.opens | quad.opened_kinds;
            level += quad.opens;
            open_run >>= 4;
            kind_run >>= 4;
            left = left < 4 ? 0 : left - 4;
        }
    } while (left);
    if (wrong || least < 1) return 0;
    nesting->top = top;
    nesting->level = level;
    return 1;
}

/* Whether the block in which the value ends is well up to that place; behind it, it is not the value's business. */
static JSON_TARGET int JSON_NAMED(json_ends_well)(const uint8_t *block, int place, uint64_t faults, uint64_t high) {
    uint8_t room[68];
    if (_bzhi_u64(faults, (unsigned) place)) return 0;
    return !high || json_is_utf8(json_padded(room, block, place));
}

static JSON_TARGET ptrdiff_t JSON_NAMED(json_scan)(
    const uint8_t *text, ptrdiff_t at, ptrdiff_t end, int max_depth) {
    json_nesting nesting;
    uint8_t room[68];
    uint64_t in_string = 0, escape = 0, before = 0;
    if (max_depth < 1) return -1;
    nesting.top = text[at] == '{';
    nesting.level = 1;
    nesting.beneath = 0;
    for (at++; at < end; at += 64) {
        const uint8_t *block = end - at >= 64 ? text + at : json_padded(room, text + at, end - at);
        json_masks masks = JSON_NAMED(json_masks)(block);
        uint64_t escaped = masks.slashes | escape ? json_escaped(masks.slashes, &escape) : 0;
        uint64_t quotes = masks.quotes & ~escaped;
        uint64_t strings = json_prefix_xor(quotes) ^ in_string;
        uint64_t faults = (strings & masks.controls) | (masks.foreign & ~strings);
        uint64_t brackets = masks.brackets & ~strings;
        uint64_t high = masks.high | before;
        in_string = (uint64_t) ((int64_t) strings >> 63);
        if (brackets && !JSON_NAMED(json_run)(&nesting, brackets, masks.opens, masks.objects, max_depth)) {
            int place = json_walk(&nesting, brackets, masks.opens, masks.objects, max_depth);
            if (place == JSON_REFUSED) return -1;
            if (place < JSON_GOES_ON)
                return JSON_NAMED(json_ends_well)(block, place, faults, high) ? at + place + 1 : -1;
        }
        if (faults || (high && !json_is_utf8(block))) return -1;
        before = masks.high >> 61;
        if (in_string && !(quotes | masks.slashes)) {
            at = JSON_NAMED(json_skip_text)(text, at + 64, end, &before) - 64;
            if (at < 0) return -1;
        }
    }
    return -1;
}

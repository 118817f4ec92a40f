/* The scan of json_blocks.h for one instruction set, included once for each. JSON_TARGET is the attribute that selects
   the instruction set, JSON_NAMED(name) makes names for it. */

/* Step over the blocks of a string that do not end it; return whether the next block ends it or has a control. */
JSON_INLINE JSON_TARGET int JSON_NAMED(json_skip_singly)(const uint8_t *text, json_place *place, ptrdiff_t end) {
    ptrdiff_t at = place->at;
    uint64_t before = place->rare, high;
    int stops = 0;
    for (; end - at >= 64; at += 64) {
        json_rare rare = {0, 0, 0, 0, 0};
        if (!JSON_NAMED(json_is_text)(text + at, &high)) {
            rare = JSON_NAMED(json_rare_masks)(text + at);
            json_escape(&rare, before);
            stops = rare.controls || (JSON_NAMED(json_quotes)(text + at) & ~rare.escaped);
            if (stops) break;
        } else {
            /* A backslash before such a block escapes nothing that matters. */
            rare.high = high;
            rare.rare = (before & JSON_WRONG) | high >> 61;
        }
        if ((rare.high | (before & JSON_BEFORE)) && !json_is_utf8(text + at)) rare.rare |= JSON_WRONG;
        before = rare.rare;
    }
    place->at = at;
    place->rare = before;
    return stops;
}

/* Step over JSON_LONG bytes of a string at a time, as long as they are ASCII without quotes and controls. */
JSON_INLINE JSON_TARGET void JSON_NAMED(json_skip_long)(const uint8_t *text, json_place *place, ptrdiff_t end) {
    ptrdiff_t at = place->at;
    uint64_t slashes, last = 0, escaped = 0;
    /* What a run of backslashes escapes depends only on the last block, unless that is all backslashes. */
    for (; end - at >= JSON_LONG && json_is_plain(text + at, &slashes) && ~slashes; at += JSON_LONG)
        last = slashes;
    if (at == place->at) return;
    (void) json_escaped(last, &escaped);
    place->at = at;
    place->rare = (place->rare & JSON_WRONG) | (escaped ? JSON_ESCAPE : 0);
}

/* Step over the text of a string; stop at the block that ends the string or has a control. */
static JSON_TARGET void JSON_NAMED(json_skip_text)(const uint8_t *text, json_place *place, ptrdiff_t end) {
    ptrdiff_t patience = JSON_PATIENCE;
    while (end - place->at >= 64) {
        ptrdiff_t at, pause = end - place->at > patience ? place->at + patience : end;
        if (JSON_NAMED(json_skip_singly)(text, place, pause)) return;
        if (place->rare & JSON_BEFORE) continue;
        at = place->at;
        JSON_NAMED(json_skip_long)(text, place, end);
        /* If that skipped nothing, try it half as often. */
        patience = place->at > at ? JSON_PATIENCE : 2 * patience;
    }
}

/* A block: its brackets outside strings, its faults other than invalid UTF-8, and which bytes are in strings. */
typedef struct {
    uint64_t brackets, opens, objects, faults, strings;
} JSON_NAMED(json_block);

JSON_INLINE JSON_TARGET JSON_NAMED(json_block) JSON_NAMED(json_read)(
    const uint8_t *bytes, json_masks masks, json_place *place, int with_rare) {
    uint64_t quotes = masks.quotes, controls = 0, strings;
    JSON_NAMED(json_block) block;
    if (with_rare) {
        json_rare rare = JSON_NAMED(json_rare_masks)(bytes);
        json_escape(&rare, place->rare);
        if ((rare.high | (place->rare & JSON_BEFORE)) && !json_is_utf8(bytes)) rare.rare |= JSON_WRONG;
        quotes &= ~(rare.escaped | rare.high);
        masks.foreign |= rare.high;
        masks.brackets &= ~rare.high;
        controls = rare.controls;
        place->rare = rare.rare;
    }
    strings = json_prefix_xor(quotes) ^ place->in_string;
    block.brackets = masks.brackets & ~strings;
    block.opens = masks.opens;
    block.objects = masks.objects;
    block.faults = (masks.foreign & ~strings) | (controls & strings);
    block.strings = strings;
    place->in_string = (uint64_t) ((int64_t) strings >> 63);
    place->at += 64;
    return block;
}

/* Up to 64 brackets of consecutive blocks, the first in the lowest bit. */
typedef struct {
    uint64_t closes, objects;
    int size;
} JSON_NAMED(json_queue);

/* Apply the brackets without looking at each: remove all pairs of an opening bracket followed by a closing one, again
   and again, until what is left closes earlier levels and then opens new ones. Return 0, with the nesting unchanged, if
   they end the value, if they do not match, or if the levels do not fit into "top". */
JSON_INLINE JSON_TARGET int JSON_NAMED(json_run)(json_nesting *nesting, JSON_NAMED(json_queue) queue, int max_depth) {
    int room = max_depth - nesting->beneath, opens = queue.size - (int) _mm_popcnt_u64(queue.closes);
    uint64_t closes = queue.closes, objects = queue.objects, top = nesting->top, wrong = 0, pairs;
    unsigned closed;
    if (json_levels(nesting) + opens > (room < JSON_TOP_LEVELS ? room : JSON_TOP_LEVELS)) return 0;
    while ((pairs = ~closes & closes >> 1) != 0) {
        uint64_t kept = ~(pairs | pairs << 1);
        wrong |= pairs & (objects ^ objects >> 1);
        opens -= (int) _mm_popcnt_u64(pairs);
        closes = _pext_u64(closes, kept);
        objects = _pext_u64(objects, kept);
    }
    closed = (unsigned) _mm_popcnt_u64(closes);
    /* If the value ends here, nothing but the 1 above the outermost level would be left. */
    if (wrong || closed >= (unsigned) json_levels(nesting) || _bzhi_u64(top ^ objects, closed)) return 0;
    nesting->top = top >> closed << opens | json_reversed(objects >> closed, opens);
    return 1;
}

/* Read whole blocks until there are enough brackets for a run, a block is all text, or a block is rare and with_rare is
   0; this may read beyond the end of the value. After JSON_CRAWL nothing has changed. */
JSON_INLINE JSON_TARGET int JSON_NAMED(json_stride)(
    const uint8_t *text, json_place *place, ptrdiff_t end, json_nesting *nesting, int max_depth, int with_rare) {
    JSON_NAMED(json_queue) queue = {0, 0, 0};
    json_place now = *place;
    ptrdiff_t last = (end - now.at > JSON_STRIDE ? now.at + JSON_STRIDE : end) - 64;
    uint64_t faults = 0;
    int next = JSON_ON;
    do {
        const uint8_t *bytes = text + now.at;
        json_masks masks = JSON_NAMED(json_masks)(bytes);
        JSON_NAMED(json_block) block;
        if (!with_rare && masks.rare) {
            next = JSON_ON_RARE;
            break;
        }
        block = JSON_NAMED(json_read)(bytes, masks, &now, with_rare);
        queue.closes |= _pext_u64(~block.opens, block.brackets) << queue.size;
        queue.objects |= _pext_u64(block.objects, block.brackets) << queue.size;
        queue.size += (int) _mm_popcnt_u64(block.brackets);
        faults |= block.faults;
        if (!~block.strings) {
            next = JSON_IN_TEXT;
            break;
        }
    } while (now.at <= last && queue.size < JSON_ENOUGH);
    if (faults || (now.rare & JSON_WRONG) || queue.size > 64) return JSON_CRAWL;
    if (!JSON_NAMED(json_run)(nesting, queue, max_depth)) return JSON_CRAWL;
    *place = now;
    return next;
}

static JSON_TARGET JSON_APART int JSON_NAMED(json_stride_plain)(
    const uint8_t *text, json_place *place, ptrdiff_t end, json_nesting *nesting, int max_depth) {
    return JSON_NAMED(json_stride)(text, place, end, nesting, max_depth, 0);
}

static JSON_TARGET JSON_APART int JSON_NAMED(json_stride_rare)(
    const uint8_t *text, json_place *place, ptrdiff_t end, json_nesting *nesting, int max_depth) {
    return JSON_NAMED(json_stride)(text, place, end, nesting, max_depth, 1);
}

/* Whether the block in which the value ends is valid up to there; what follows does not belong to the value. */
static JSON_TARGET int JSON_NAMED(json_ends_well)(
    const uint8_t *text, ptrdiff_t at, int size, uint64_t faults, uint64_t rare) {
    uint8_t room[JSON_ROOM];
    if (_bzhi_u64(faults, (unsigned) size)) return 0;
    return !(rare & JSON_WRONG) || json_is_utf8(json_padded(room, text, at, size));
}

/* Read "size" bytes in blocks, bracket by bracket, and not beyond the end of the value. With JSON_ENDED, "place" is at
   that end. */
static JSON_TARGET int JSON_NAMED(json_crawl)(
    const uint8_t *text, json_place *place, ptrdiff_t end, json_nesting *nesting, int max_depth, ptrdiff_t size) {
    uint8_t room[JSON_ROOM];
    ptrdiff_t last = place->at + size;
    while (place->at < end && place->at < last) {
        ptrdiff_t at = place->at;
        const uint8_t *bytes = end - at >= 64 ? text + at : json_padded(room, text, at, end - at);
        json_masks masks = JSON_NAMED(json_masks)(bytes);
        JSON_NAMED(json_block) block = JSON_NAMED(json_read)(bytes, masks, place, (masks.rare | place->rare) != 0);
        int ending = json_walk(nesting, block.brackets, block.opens, block.objects, max_depth);
        if (ending == JSON_REFUSED) return JSON_NO;
        if (ending < JSON_GOES_ON) {
            place->at = at + ending + 1;
            if (!JSON_NAMED(json_ends_well)(text, at, ending, block.faults, place->rare)) return JSON_NO;
            return JSON_ENDED;
        }
        if (block.faults || (place->rare & JSON_WRONG)) return JSON_NO;
        if (!~block.strings) return JSON_IN_TEXT;
    }
    return place->at < end ? JSON_ON : JSON_NO;
}

/* Return where the object or array that opens at "at" ends, -1 if it is invalid. */
static JSON_TARGET ptrdiff_t JSON_NAMED(json_scan)(
    const uint8_t *text, ptrdiff_t at, ptrdiff_t end, int max_depth) {
    json_nesting nesting;
    json_place place = {at + 1, 0, 0};
    int next;
    if (max_depth < 1) return -1;
    nesting.top = 2 | (text[at] == '{');
    nesting.beneath = 0;
    /* A short value is read fastest without looking ahead. */
    next = JSON_NAMED(json_crawl)(text, &place, end, &nesting, max_depth, JSON_SHORT);
    while (next < JSON_ENDED) {
        if (next == JSON_IN_TEXT) {
            JSON_NAMED(json_skip_text)(text, &place, end);
            if (place.rare & JSON_WRONG) return -1;
        }
        if (end - place.at < 64 || json_pext_is_slow)
            next = JSON_CRAWL;
        else if (next == JSON_ON_RARE || place.rare)
            next = JSON_NAMED(json_stride_rare)(text, &place, end, &nesting, max_depth);
        else
            next = JSON_NAMED(json_stride_plain)(text, &place, end, &nesting, max_depth);
        if (next == JSON_CRAWL)
            next = JSON_NAMED(json_crawl)(text, &place, end, &nesting, max_depth, JSON_STRIDE);
    }
    return next == JSON_ENDED ? place.at : -1;
}

// Attention of a decoding step: few queries to many keys.
//
// Speed is limited by memory bandwidth, so keys and values are read once, in order, with prefetching.
// Compiled and called by kernels.py, which checks all arguments except the numbers in an index.
//
// B batch, N heads, T queries, S keys, D head size. An index (B, S) has the memory row of each key and value; without an
// index, those of example b are in row b.

#include "vectors.h"

namespace {

constexpr int ROWS_AHEAD = 16;  // prefetch distance in keys or values; 8 and 32 are slower

template <typename T, int V>
inline void fetch(const T* row) {
    for (int line = 0; line < int(sizeof(T)) * V * LANES; line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(row) + line);
}

// 0 to n - 1, alternating between the first and the second half: two streams are fetched faster than one.
inline long from_both_halves(long i, long n) { return i % 2 * ((n + 1) / 2) + i / 2; }

// Whether an index contains only valid rows.
bool is_inside(const int64_t* index, long count, long rows) {
    bool inside = true;
    for (long i = 0; i < count; i++) inside &= uint64_t(index[i]) < uint64_t(rows);
    return inside;
}

struct Steps {
    long batch, head, row;
};

// One head: Q queries at a time, a head size of V vectors. Lane c x Q + q holds the score of key c and query q.
template <typename T, int Q, int V>
void read_keys(const T* query, long query_step, const T* key, Steps key_step, const T* value, Steps value_step,
               const int64_t* index, const uint8_t* mask, long mask_step, long keys, float scale, float* scores, T* read,
               long read_step) {
    constexpr int KEYS = LANES / Q;
    auto row_of = [&](const T* all, const Steps& step, long s) {
        s = s < keys ? s : keys - 1;
        return all + s * step.row + (index ? index[s] * step.batch : 0);
    };
    floats queries[Q * V];
    for (int q = 0; q < Q; q++)
        for (int v = 0; v < V; v += 2) {
            Two two = load_two(query + q * query_step + v * LANES);
            queries[q * V + v] = two.first * scale;
            queries[q * V + v + 1] = two.second * scale;
        }
    floats top = all(-INFINITY);
    long blocks = (keys + KEYS - 1) / KEYS;
    for (long i = 0; i < blocks; i++) {
        long s = from_both_halves(i, blocks) * KEYS;
        floats products[LANES];
        for (int c = 0; c < KEYS; c++) {
            const T* row = row_of(key, key_step, s + c);
            fetch<T, V>(row_of(key, key_step, s + c + ROWS_AHEAD));
            for (int v = 0; v < V; v += 2) {
                Two two = load_two(row + v * LANES);
                for (int q = 0; q < Q; q++) {
                    floats sum = two.first * queries[q * V + v] + two.second * queries[q * V + v + 1];
                    products[c * Q + q] = v ? products[c * Q + q] + sum : sum;
                }
            }
        }
        floats score = sums(products);
        if (mask || s + KEYS > keys)
            for (int c = 0; c < KEYS; c++)
                for (int q = 0; q < Q; q++)
                    if (s + c >= keys || (mask && !mask[q * mask_step + s + c])) score[c * Q + q] = -INFINITY;
        store(scores + s * Q, score);
        top = score > top ? score : top;
    }
    floats largest, total{};
    for (int q = 0; q < Q; q++) {
        float most = -INFINITY;
        for (int c = 0; c < KEYS; c++) most = std::fmax(most, top[c * Q + q]);
        for (int c = 0; c < KEYS; c++) largest[c * Q + q] = most == -INFINITY ? 0.0f : most;
    }
    for (long s = 0; s < keys; s += KEYS) {
        floats score = load(scores + s * Q);
        floats weight = score == -INFINITY ? floats{} : exp_of_negative(score - largest);
        weight = score == score ? weight : score;  // keep NaN
        store(scores + s * Q, weight);
        total += weight;
    }
    floats reads[Q * V] = {};
    for (long i = 0; i < keys; i++) {
        long s = from_both_halves(i, keys);
        const T* row = row_of(value, value_step, s);
        fetch<T, V>(row_of(value, value_step, s + ROWS_AHEAD));
        for (int v = 0; v < V; v += 2) {
            Two two = load_two(row + v * LANES);
            for (int q = 0; q < Q; q++) {
                reads[q * V + v] += two.first * scores[s * Q + q];
                reads[q * V + v + 1] += two.second * scores[s * Q + q];
            }
        }
    }
    for (int q = 0; q < Q; q++) {
        float weights = 0;
        for (int c = 0; c < KEYS; c++) weights += total[c * Q + q];
        float share = weights > 0 ? 1 / weights : weights == 0 ? 0 : NAN;  // zero if no key is visible
        for (int v = 0; v < V; v += 2)
            store_two(read + q * read_step + v * LANES, {reads[q * V + v] * share, reads[q * V + v + 1] * share});
    }
}

template <typename T, int V>
void attend(const T* query, Steps q, const T* key, Steps k, const T* value, Steps v, const int64_t* index,
            const uint8_t* mask, Steps m, T* read, Steps r, long B, long N, long T_, long S, float scale) {
#pragma omp parallel
    {
        std::vector<float> scores(4 * (S + LANES));
#pragma omp for collapse(2) schedule(static)
        for (long b = 0; b < B; b++)
            for (long n = 0; n < N; n++) {
                const uint8_t* row = mask ? mask + b * m.batch : nullptr;
                long keys = S;
                if (row && m.row == 0)  // skip padding at the end
                    while (keys > 1 && !row[keys - 1]) keys--;
                for (long t = 0; t < T_;) {
                    const T* at = query + b * q.batch + n * q.head + t * q.row;
                    const T* of_key = key + (index ? 0 : b * k.batch) + n * k.head;
                    const T* of_value = value + (index ? 0 : b * v.batch) + n * v.head;
                    const int64_t* of_index = index ? index + b * S : nullptr;
                    const uint8_t* of_mask = row ? row + t * m.row : nullptr;
                    T* to = read + b * r.batch + n * r.head + t * r.row;
                    long some = T_ - t >= 4 ? 4 : T_ - t >= 2 ? 2 : 1;
                    auto one_head = some == 4 ? read_keys<T, 4, V> : some == 2 ? read_keys<T, 2, V> : read_keys<T, 1, V>;
                    one_head(at, q.row, of_key, k, of_value, v, of_index, of_mask, m.row, keys, scale, scores.data(),
                             to, r.row);
                    t += some;
                }
            }
    }
}

template <typename T>
int attend_by_width(const void* query, const void* key, const void* value, const int64_t* index, const uint8_t* mask,
                    void* read, const int64_t* size, const int64_t* step, float scale) {
    auto run = [&](auto kernel) {
        Steps s[5];
        for (int i = 0; i < 5; i++) s[i] = {step[3 * i], step[3 * i + 1], step[3 * i + 2]};
        kernel(static_cast<const T*>(query), s[0], static_cast<const T*>(key), s[1], static_cast<const T*>(value), s[2],
               index, mask, s[3], static_cast<T*>(read), s[4], size[0], size[1], size[2], size[3], scale);
        return 0;
    };
    switch (size[4]) {
        case 32: return run(attend<T, 2>);
        case 64: return run(attend<T, 4>);
        case 96: return run(attend<T, 6>);
        case 128: return run(attend<T, 8>);
        case 256: return run(attend<T, 16>);
        default: return 1;
    }
}

}  // namespace

extern "C" {

// Attention of queries (B, N, T, D) to keys and values (B, N, S, D). size: B, N, T, S, D, rows of keys. step: strides of
// batch, head and row for query, key, value, mask (bool, no heads) and result. index: null, or (B, S). bfloat: 1 for
// bfloat16, 0 for float32. Returns 0 on success, else the head size is unsupported or an index is outside the rows of
// keys, and nothing was read.
int warmstart_attend(int bfloat, const void* query, const void* key, const void* value, const int64_t* index,
                     const uint8_t* mask, void* read, const int64_t* size, const int64_t* step, float scale) {
    if (index && !is_inside(index, size[0] * size[3], size[5])) return 2;
    auto chosen = bfloat ? attend_by_width<bfloat16> : attend_by_width<float>;
    return chosen(query, key, value, index, mask, read, size, step, scale);
}

// Copies rows to (B, N, S, D), by the index (B, S), from a memory of `held` rows with the given strides in bytes.
// Returns 0 on success, else an index is outside the memory, and nothing was read.
int warmstart_in_order(const char* memory, const int64_t* index, char* rows, long B, long N, long S, long bytes, long held,
                       const int64_t* step) {
    if (!is_inside(index, B * S, held)) return 2;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long n = 0; n < N; n++)
            for (long s = 0; s < S; s++) {
                const char* from = memory + index[b * S + s] * step[0] + n * step[1] + s * step[2];
                std::memcpy(rows + ((b * N + n) * S + s) * bytes, from, bytes);
            }
    return 0;
}
}

// A decoding step's kernels for a CPU with AVX-512: attention of few queries, and few rows times a matrix.
//
// Both read far more than they compute, so what counts is that memory is read once, in order, and asked for ahead.
// Compiled and called by cpu_kernels.py, which checks every argument.
//
// B batch, N heads, T queries, S keys, D width of a head; M rows, K inner width, C columns of the product. Where there
// are places (B, S), the key and value at a position stand in that row of their memory, and not all in row b.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int LANES = 16;
constexpr int ROWS_AHEAD = 16;       // of keys or values: at 8 and 32 the reads took up to a fifth longer
constexpr int VECTORS_AHEAD = 24;    // of a matrix: 1.5 KB in each of two streams
constexpr int INNER = 16;            // places of a product's inner width that all rows take before the next are read
constexpr int MOST_ROWS = 64;        // of a product at one time: their sums stay in the nearest cache

typedef float floats __attribute__((vector_size(64)));
typedef float floats_anywhere __attribute__((vector_size(64), aligned(4)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint32_t words_anywhere __attribute__((vector_size(64), aligned(2)));
typedef uint16_t bfloat16;

inline floats load(const float* from) { return *reinterpret_cast<const floats_anywhere*>(from); }
inline void store(float* to, floats values) { *reinterpret_cast<floats_anywhere*>(to) = values; }
inline floats all(float value) { return value - floats{}; }

// 32 elements as two vectors; those of bfloat16 are split into even and odd places, which takes no shuffle.
struct Two {
    floats first, second;
};

inline Two load_two(const float* from) { return {load(from), load(from + LANES)}; }

inline Two load_two(const bfloat16* from) {
    words both = *reinterpret_cast<const words_anywhere*>(from);
    return {(floats)(both << 16), (floats)(both & 0xffff0000u)};
}

inline void store_two(float* to, Two values) {
    store(to, values.first);
    store(to + LANES, values.second);
}

inline words rounded(floats values) {  // to the nearest bfloat16, ties to even; a NaN stays one
    words bits = (words)values;
    words result = bits + 0x7fffu + ((bits >> 16) & 1u);
    return values == values ? result : bits | 0x400000u;
}

inline void store_two(bfloat16* to, Two values) {
    *reinterpret_cast<words_anywhere*>(to) = (rounded(values.first) >> 16) | (rounded(values.second) & 0xffff0000u);
}

inline floats exp_of_negative(floats x) {
    x = x * 1.44269504f;
    x = x < -126.0f ? all(-126.0f) : x;
    floats shifted = x + 12582912.0f;  // 1.5 x 2^23: the integer part lands in the lowest bits
    floats part = x - (shifted - 12582912.0f);
    floats power = all(1.5403530e-4f);
    power = power * part + 1.3333558e-3f;
    power = power * part + 9.6181291e-3f;
    power = power * part + 5.5504109e-2f;
    power = power * part + 2.4022651e-1f;
    power = power * part + 6.9314718e-1f;
    power = power * part + 1.0f;
    return (floats)((ints)power + (((ints)shifted - 0x4B400000) << 23));
}

// Sixteen vectors to one: lane i is the sum of vector i's lanes.
inline floats sums(const floats* of) {
    floats a[8];
    for (int i = 0; i < 8; i++)
        a[i] = __builtin_shufflevector(of[2 * i], of[2 * i + 1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
               __builtin_shufflevector(of[2 * i], of[2 * i + 1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    for (int i = 0; i < 4; i++)
        a[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    for (int i = 0; i < 2; i++)
        a[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               __builtin_shufflevector(a[2 * i], a[2 * i + 1], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    return __builtin_shufflevector(a[0], a[1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           __builtin_shufflevector(a[0], a[1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

template <typename T, int V>
inline void fetch(const T* row) {
    for (int line = 0; line < int(sizeof(T)) * V * LANES; line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(row) + line);
}

// 0 to n - 1, of each half in turn: two streams are fetched faster than one.
inline long from_both_halves(long i, long n) { return i % 2 * ((n + 1) / 2) + i / 2; }

struct Steps {
    long batch, head, row;
};

// One head: Q queries at a time, a width of V vectors. Lane c x Q + q of the scores is key c's with query q.
template <typename T, int Q, int V>
void read_keys(const T* query, long query_step, const T* key, Steps key_step, const T* value, Steps value_step,
               const int64_t* places, const uint8_t* mask, long mask_step, long keys, float scale, float* scores, T* read,
               long read_step) {
    constexpr int KEYS = LANES / Q;
    auto row_of = [&](const T* all, const Steps& step, long s) {
        s = s < keys ? s : keys - 1;
        return all + s * step.row + (places ? places[s] * step.batch : 0);
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
        weight = score == score ? weight : score;  // NaN stays one
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
        float share = weights > 0 ? 1 / weights : weights == 0 ? 0 : NAN;  // nothing may be read: zero
        for (int v = 0; v < V; v += 2)
            store_two(read + q * read_step + v * LANES, {reads[q * V + v] * share, reads[q * V + v + 1] * share});
    }
}

template <typename T, int V>
void attend(const T* query, Steps q, const T* key, Steps k, const T* value, Steps v, const int64_t* places,
            const uint8_t* mask, Steps m, T* read, Steps r, long B, long N, long T_, long S, float scale) {
#pragma omp parallel
    {
        std::vector<float> scores(4 * (S + LANES));
#pragma omp for collapse(2) schedule(static)
        for (long b = 0; b < B; b++)
            for (long n = 0; n < N; n++) {
                const uint8_t* row = mask ? mask + b * m.batch : nullptr;
                long keys = S;
                if (row && m.row == 0)  // padding at the end is not read at all
                    while (keys > 1 && !row[keys - 1]) keys--;
                for (long t = 0; t < T_;) {
                    const T* at = query + b * q.batch + n * q.head + t * q.row;
                    const T* of_key = key + (places ? 0 : b * k.batch) + n * k.head;
                    const T* of_value = value + (places ? 0 : b * v.batch) + n * v.head;
                    const int64_t* of_places = places ? places + b * S : nullptr;
                    const uint8_t* of_mask = row ? row + t * m.row : nullptr;
                    T* to = read + b * r.batch + n * r.head + t * r.row;
                    long some = T_ - t >= 4 ? 4 : T_ - t >= 2 ? 2 : 1;
                    auto one_head = some == 4 ? read_keys<T, 4, V> : some == 2 ? read_keys<T, 2, V> : read_keys<T, 1, V>;
                    one_head(at, q.row, of_key, k, of_value, v, of_places, of_mask, m.row, keys, scale, scores.data(),
                             to, r.row);
                    t += some;
                }
            }
    }
}

template <typename T>
int attend_by_width(const void* query, const void* key, const void* value, const int64_t* places, const uint8_t* mask,
                    void* read, const int64_t* size, const int64_t* step, float scale) {
    auto run = [&](auto kernel) {
        Steps s[5];
        for (int i = 0; i < 5; i++) s[i] = {step[3 * i], step[3 * i + 1], step[3 * i + 2]};
        kernel(static_cast<const T*>(query), s[0], static_cast<const T*>(key), s[1], static_cast<const T*>(value), s[2],
               places, mask, s[3], static_cast<T*>(read), s[4], size[0], size[1], size[2], size[3], scale);
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

// A matrix from one place of its inner width on: 16 of its columns, and `group` further the next 16; two streams again.
struct Columns {
    const float* weight;
    long group;
};

// Adds `places` of the inner width to the sums of M rows. Inlined: a call for so few costs a tenth of a product.
template <int M>
[[gnu::always_inline]] inline long multiply(const float* rows, long row_step, Columns columns, long places, bool fetched,
                                            Two* sum) {
    floats firsts[M], seconds[M];
    for (int m = 0; m < M; m++) {
        firsts[m] = sum[m].first;
        seconds[m] = sum[m].second;
    }
    for (long k = 0; k < places; k++) {
        const float* at = columns.weight + k * LANES;
        floats first = load(at), second = load(at + columns.group);
        if (!fetched) {
            __builtin_prefetch(at + VECTORS_AHEAD * LANES);
            __builtin_prefetch(at + columns.group + VECTORS_AHEAD * LANES);
        }
        for (int m = 0; m < M; m++) {
            floats one = all(rows[k * row_step + m]);
            asm("" : "+v"(one));  // once into a register: as an operand of both products it would be read twice
            firsts[m] += first * one;
            seconds[m] += second * one;
        }
    }
    for (int m = 0; m < M; m++) {
        sum[m].first = firsts[m];
        sum[m].second = seconds[m];
    }
    return M;
}

// The same for some of so many rows; how many.
inline long multiply_some(long left, const float* rows, long row_step, Columns columns, long places, bool fetched,
                          Two* sum) {
    if (left >= 8) return multiply<8>(rows, row_step, columns, places, fetched, sum);
    if (left >= 4) return multiply<4>(rows, row_step, columns, places, fetched, sum);
    if (left >= 2) return multiply<2>(rows, row_step, columns, places, fetched, sum);
    return multiply<1>(rows, row_step, columns, places, fetched, sum);
}

}  // namespace

extern "C" {

// What (B, N, T, D) read from keys and values (B, N, S, D). size: B, N, T, S, D. step: of batch, head and row for
// query, key, value, mask (bool, no heads) and read. places: none, or (B, S). bfloat: 1 for bfloat16, 0 for float32.
// Not 0: no such width.
int warmstart_attend(int bfloat, const void* query, const void* key, const void* value, const int64_t* places,
                     const uint8_t* mask, void* read, const int64_t* size, const int64_t* step, float scale) {
    auto chosen = bfloat ? attend_by_width<bfloat16> : attend_by_width<float>;
    return chosen(query, key, value, places, mask, read, size, step, scale);
}

// Rows (B, N, S, D) of so many bytes each, from the places (B, S) of memory whose steps, in bytes, are given.
void warmstart_in_order(const char* memory, const int64_t* places, char* rows, long B, long N, long S, long bytes,
                        const int64_t* step) {
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long n = 0; n < N; n++)
            for (long s = 0; s < S; s++) {
                const char* from = memory + places[b * S + s] * step[0] + n * step[1] + s * step[2];
                std::memcpy(rows + ((b * N + n) * S + s) * bytes, from, bytes);
            }
}

// (M, K) times the transpose of (C, K), whose columns lie in groups of 16, (C / 16, K, 16), filled up with zeros to an
// even number of groups.
void warmstart_product(const float* rows, const float* weight, const float* bias, float* result, long M, long C, long K) {
    std::vector<float> turned(M * K);  // (K, M): what one place is multiplied with lies together
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long k = 0; k < K; k += INNER)
            for (long m = 0; m < M; m++)
                for (long i = k; i < K && i < k + INNER; i++) turned[i * M + m] = rows[m * K + i];
#pragma omp for schedule(static)
        for (long c = 0; c < C; c += 2 * LANES) {
            int kept = C - c < 2 * LANES ? int(C - c) : 2 * LANES;
            float added[2 * LANES] = {};
            if (bias) std::memcpy(added, bias + c, kept * sizeof(float));
            for (long begin = 0; begin < M; begin += MOST_ROWS) {
                long end = M - begin < MOST_ROWS ? M : begin + MOST_ROWS;
                Two sum[MOST_ROWS];
                for (long m = begin; m < end; m++) sum[m - begin] = load_two(added);
                for (long k = 0; k < K; k += INNER)
                    for (long m = begin; m < end;)
                        m += multiply_some(end - m, turned.data() + k * M + m, M, {weight + c * K + k * LANES, K * LANES},
                                           K - k < INNER ? K - k : INNER, m > 0, sum + m - begin);
                for (long m = begin; m < end; m++) std::memcpy(result + m * C + c, sum + m - begin, kept * sizeof(float));
            }
        }
    }
}
}

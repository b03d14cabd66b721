// Products of a decoding step: few float32 rows times a matrix that is read from memory once.
//
// Compiled and called by kernels.py, which checks all arguments.
//
// M rows, K inner size, C columns of the product.

#include "vectors.h"

namespace {

constexpr int VECTORS_AHEAD = 24;  // prefetch distance in a matrix: 1.5 KB in each of two streams
constexpr int INNER = 16;          // inner positions that are processed for all rows before the next ones are read
constexpr int MOST_ROWS = 64;      // rows at a time, so that their sums stay in the L1 cache

// A matrix from an inner position on: 16 columns, and the next 16 at the offset `group`. Two streams are fetched faster
// than one.
struct Columns {
    const float* weight;
    long group;
};

// Adds `places` inner positions to the sums of M rows. Inlined, because a call costs too much for so little work.
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
            asm("" : "+v"(one));  // loads into a register once; as an operand of both products it would be read twice
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

// The same for the next rows; returns their number.
inline long multiply_some(long left, const float* rows, long row_step, Columns columns, long places, bool fetched,
                          Two* sum) {
    if (left >= 8) return multiply<8>(rows, row_step, columns, places, fetched, sum);
    if (left >= 4) return multiply<4>(rows, row_step, columns, places, fetched, sum);
    if (left >= 2) return multiply<2>(rows, row_step, columns, places, fetched, sum);
    return multiply<1>(rows, row_step, columns, places, fetched, sum);
}

}  // namespace

// (M, K) times the transpose of (C, K), which is prepacked in groups of 16 columns, (C / 16, K, 16), padded with zeros
// to an even number of groups.
extern "C" void warmstart_product(const float* rows, const float* weight, const float* bias, float* result, long M,
                                  long C, long K) {
    std::vector<float> turned(M * K);  // (K, M): the factors of an inner position are adjacent
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

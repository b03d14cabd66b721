// Elementwise functions of a decoding step in one pass: the tanh approximation of GELU, and log probabilities.
//
// torch needs several passes for bfloat16, one of them a copy in float32. Here each number is computed in float32 and
// rounded once. Compiled and called by kernels.py, which checks all arguments.

#include "vectors.h"

namespace {

typedef uint16_t halves __attribute__((vector_size(32)));
typedef uint16_t halves_anywhere __attribute__((vector_size(32), aligned(2)));

inline floats load_in_order(const float* from) { return load(from); }

inline floats load_in_order(const bfloat16* from) {
    halves sixteen = *reinterpret_cast<const halves_anywhere*>(from);
    return (floats)(__builtin_convertvector(sixteen, words) << 16);
}

inline void store_in_order(float* to, floats values) { store(to, values); }

inline void store_in_order(bfloat16* to, floats values) {
    *reinterpret_cast<halves_anywhere*>(to) = __builtin_convertvector(rounded(values) >> 16, halves);
}

inline floats magnitude(floats x) { return x < 0.0f ? -x : x; }

// x / 2 (1 + tanh(u / 2)) is x / (1 + exp(-u)), u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
inline floats gelu_by_tanh(floats x) {
    floats u = 1.59576912f * (x + 0.044715f * x * x * x);
    floats power = exp_of_negative(-magnitude(u));
    return x * (u < 0.0f ? power : all(1.0f)) / (1.0f + power);
}

template <typename T>
void gelu(const T* from, T* to, long count) {
    auto some = [](const T* at, T* result) {
        floats x = load_in_order(at), y = gelu_by_tanh(x);
        store_in_order(result, x == x ? y : x);  // keep NaN
    };
    long whole = count / LANES * LANES;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < whole; i += LANES) some(from + i, to + i);
    T rest[LANES] = {};
    std::memcpy(rest, from + whole, (count - whole) * sizeof(T));
    some(rest, rest);
    std::memcpy(to + whole, rest, (count - whole) * sizeof(T));
}

// x - max - log(sum(exp(x - max))) of V numbers; the last ones are copied to fill a vector.
template <typename T>
void log_probabilities(const T* row, float* to, long V) {
    long whole = V / LANES * LANES, left = V - whole;
    T padded[LANES];
    for (int i = 0; i < LANES; i++) padded[i] = row[i < left ? whole + i : 0];
    floats rest = load_in_order(padded), top = rest, total{};
    for (long i = 0; i < whole; i += LANES) {
        floats x = load_in_order(row + i);
        top = x > top ? x : top;
    }
    float most = -INFINITY, sum = 0;
    for (int i = 0; i < LANES; i++) most = std::fmax(most, top[i]);
    for (long i = 0; i < whole; i += LANES) {
        floats x = load_in_order(row + i) - most, power = exp_of_negative(x);
        total += x == x ? power : x;
    }
    for (int i = 0; i < LANES; i++) {
        sum += total[i];
        if (i < left) sum += std::exp(rest[i] - most);
    }
    float log_of_sum = std::log(sum);
    for (long i = 0; i < whole; i += LANES) store(to + i, load_in_order(row + i) - most - log_of_sum);
    for (int i = 0; i < left; i++) to[whole + i] = rest[i] - most - log_of_sum;
}

}  // namespace

extern "C" {

// The approximation by tanh. bfloat: 1 for bfloat16, 0 for float32.
void warmstart_gelu(int bfloat, const void* from, void* to, long count) {
    if (bfloat) gelu(static_cast<const bfloat16*>(from), static_cast<bfloat16*>(to), count);
    else gelu(static_cast<const float*>(from), static_cast<float*>(to), count);
}

// Log probabilities of R rows (V) with the given stride; the result (R, V) is float32.
void warmstart_log_softmax(int bfloat, const void* rows, long step, float* result, long R, long V) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < R; r++)
        if (bfloat) log_probabilities(static_cast<const bfloat16*>(rows) + r * step, result + r * V, V);
        else log_probabilities(static_cast<const float*>(rows) + r * step, result + r * V, V);
}
}

// Shared by the kernels: vectors of 16 floats, and loading and storing them as float32 or bfloat16.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int LANES = 16;

typedef float floats __attribute__((vector_size(64)));
typedef float floats_anywhere __attribute__((vector_size(64), aligned(4)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint32_t words_anywhere __attribute__((vector_size(64), aligned(2)));
typedef uint16_t bfloat16;

inline floats load(const float* from) { return *reinterpret_cast<const floats_anywhere*>(from); }
inline void store(float* to, floats values) { *reinterpret_cast<floats_anywhere*>(to) = values; }
inline floats all(float value) { return value - floats{}; }

// 32 elements as two vectors; bfloat16 elements are split into even and odd positions, which needs no shuffle.
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

inline words rounded(floats values) {  // to the nearest bfloat16, ties to even; keeps NaN
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
    floats shifted = x + 12582912.0f;  // 1.5 x 2^23: the integer part is in the lowest bits
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

// Reduces 16 vectors to one: lane i is the sum of the lanes of vector i.
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

}  // namespace

// How fast the first card's memory is: a copy of 2 GiB on it, again and again. Prints "NAME | GB/s", bytes read plus bytes written.
#include <cstdio>
#include <cstdlib>

static void check(cudaError_t status) {
    if (status != cudaSuccess) {
        std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
        std::exit(1);
    }
}

int main() {
    const size_t n_bytes = size_t(2) << 30;
    const int warm_up = 3, times = 10;
    cudaDeviceProp card;
    check(cudaGetDeviceProperties(&card, 0));
    void *from, *to;
    check(cudaMalloc(&from, n_bytes));
    check(cudaMalloc(&to, n_bytes));
    check(cudaMemset(from, 1, n_bytes));
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin));
    check(cudaEventCreate(&end));
    for (int i = 0; i < warm_up + times; i++) {
        if (i == warm_up) {
            check(cudaEventRecord(begin));
        }
        check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToDevice));
    }
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float milliseconds;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    std::printf("%s | %.0f\n", card.name, 2.0 * times * n_bytes / milliseconds / 1e6);
}

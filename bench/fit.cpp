// llama.cpp's own automatic fit, asked with budgets: FIT MODEL N_CTX N_UBATCH KV_TYPE BUDGET_MIB... -- WORKER...
// Prints one line a fact: ngl N | ts N... | ot PATTERN BUFFER. Ends with 1 when it finds no fit, with 2 when it could not look for one.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "fit.h"
#include "ggml-backend.h"
#include "ggml-rpc.h"
#include "llama.h"

// llama.cpp keeps this in common.cpp, which nothing else here needs
bool tty_can_use_colors() {
    return false;
}

static ggml_type type_named(const char * name) {
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        const char * known = ggml_type_name((ggml_type) type);
        if (known != nullptr && std::strcmp(known, name) == 0) {
            return (ggml_type) type;
        }
    }
    std::fprintf(stderr, "no type is called %s\n", name);
    std::exit(2);
}

int main(int argc, char ** argv) {
    int next = 5;
    std::vector<size_t> budgets;
    for (; next < argc && std::strcmp(argv[next], "--") != 0; next++) {
        budgets.push_back(std::strtoull(argv[next], nullptr, 10) << 20);
    }
    for (next++; next < argc; next++) {
        ggml_backend_register(ggml_backend_rpc_add_server(argv[next]));
    }
    llama_backend_init();
    std::vector<size_t> margins;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_GPU) {
            continue;
        }
        size_t free_now, total;
        ggml_backend_dev_memory(device, &free_now, &total);
        const size_t budget = budgets[margins.size() % budgets.size()];
        if (budget > free_now) {
            std::fprintf(stderr, "a budget is larger than what is free\n");
            return 2;
        }
        margins.push_back(free_now - budget);
    }
    margins.resize(llama_max_devices(), 0);

    llama_model_params model = llama_model_default_params();
    llama_context_params context = llama_context_default_params();
    context.n_ctx = std::atoi(argv[2]);
    context.n_ubatch = std::atoi(argv[3]);
    context.type_k = context.type_v = type_named(argv[4]);
    context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    std::vector<float> split(llama_max_devices(), 0.0f);
    std::vector<llama_model_tensor_buft_override> overrides(llama_max_tensor_buft_overrides());
    model.tensor_split = split.data();
    const auto status = common_fit_params(argv[1], &model, &context, split.data(), overrides.data(), margins.data(),
                                          context.n_ctx, nullptr, GGML_LOG_LEVEL_ERROR);
    if (status != COMMON_PARAMS_FIT_STATUS_SUCCESS) {
        std::fprintf(stderr, "llama.cpp finds no fit\n");
        return status == COMMON_PARAMS_FIT_STATUS_FAILURE ? 1 : 2;
    }
    std::printf("ngl %d\nts", model.n_gpu_layers);
    for (float share : split) {
        std::printf(" %g", share);
    }
    std::printf("\n");
    for (const auto & one : overrides) {
        if (one.pattern == nullptr) {
            break;
        }
        std::printf("ot %s %s\n", one.pattern, ggml_backend_buft_name(one.buft));
    }
    return 0;
}

#include <exception>

#include "ee/comm/world.h"
#include "ee/infer/pipeline_engine.h"
#include "infer_generate.h"
#include "processes.h"

namespace ee::cli {

namespace {

// Rank 0's prompt to all.
void share(const parallel::Ranks& ranks, std::vector<int64_t>& prompt) {
  const auto options = at::TensorOptions(at::kLong).device(ranks.device);
  const at::Tensor size = at::full({1}, static_cast<int64_t>(prompt.size()), options);
  ranks.all.broadcast(size, 0);
  prompt.resize(static_cast<size_t>(size.item<int64_t>()));
  const at::Tensor tokens = at::tensor(prompt, at::kLong).to(ranks.device);
  ranks.all.broadcast(tokens, 0);
  const at::Tensor here = tokens.cpu();
  std::copy_n(here.const_data_ptr<int64_t>(), prompt.size(), prompt.begin());
}

// Loads this rank's part and generates. Returns the error that ended it, as far as this rank knows.
std::string generate_on(const parallel::Ranks& ranks, const GenerateArguments& arguments,
                        std::span<const int64_t> prompt) {
  infer::LoadRequest request = arguments.model.request();
  request.tensor = ranks.tensor;
  request.stage = ranks.grid.position().pipeline;
  request.stages = ranks.grid.sizes().pipeline;
  request.check = checkpoint::Check::never;  // done, before the ranks met
  const infer::Model model = infer::load_model(request);
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  if (ranks.grid.is_first_stage()) {
    tokenizer = arguments.model.load_tokenizer(model);
  }
  const auto generate = [&](const infer::GenerateListener& listener) {
    return infer::generate_on_ranks(model, ranks, tokenizer.get(), prompt, arguments.generate, listener);
  };
  if (ranks.is_first()) {
    return show(arguments, model, *tokenizer,
                [&](const infer::GenerateListener& listener) { return generate(listener).value(); });
  }
  const auto generation = generate({});
  return generation ? generation->error : "";
}

}  // namespace

int generate_together(const GenerateArguments& arguments, const comm::LaunchInfo& launch) {
  const auto config = one_speaks(launch.local_rank, [&] {
    arguments.model.set_threads(launch.local_world_size);
    if (launch.rank == 0) {
      warn_of_missing_checksums(arguments.model.folder);
    }
    return infer::check_model(arguments.model.request(), arguments.grid);
  });
  if (!config) {
    return base::kExitUserError;
  }
  // Only rank 0 knows what is wrong with its prompt. An empty one tells the others, and rank 0 complains when
  // all have left: no rank is lost.
  std::exception_ptr refusal;
  std::vector<int64_t> prompt;
  std::string error;  // and likewise what ends the text
  {
    comm::World world(launch);
    const parallel::Ranks ranks(world, arguments.grid, /*sequence=*/false, /*kv_copies=*/1);
    if (ranks.is_first()) {
      try {
        const std::string text = read_prompt(arguments);
        const auto tokenizer = infer::load_tokenizer(arguments.model.folder, *config);
        prompt = checked_prompt(arguments, text, *config, *tokenizer);
      } catch (const base::UserError&) {
        refusal = std::current_exception();
      }
    }
    share(ranks, prompt);
    if (!prompt.empty()) {
      error = generate_on(ranks, arguments, prompt);
    }
  }
  if (refusal) {
    std::rethrow_exception(refusal);
  }
  if (!error.empty() && launch.rank == 0) {
    throw base::UserError(error);
  }
  return prompt.empty() || !error.empty() ? base::kExitUserError : 0;
}

}  // namespace ee::cli

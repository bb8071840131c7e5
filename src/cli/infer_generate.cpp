#include "infer_generate.h"

#include "ee/base/error.h"
#include "infer_commands.h"
#include "processes.h"

namespace ee::cli {

using base::UserError;

namespace {

void check_grid(const parallel::GridSizes& grid, int64_t processes) {
  if (grid.tensor < 1 || grid.pipeline < 1) {
    throw UserError("--tensor is {} and --pipeline is {}, expected at least 1", grid.tensor, grid.pipeline);
  }
  if (grid.world() != processes) {
    throw UserError(
        "--tensor {} x --pipeline {} are {} processes, but {} {} running; start {} (--spawn {}, torchrun, "
        "srun, "
        "mpirun), or change the sizes",
        grid.tensor, grid.pipeline, grid.world(), processes, processes == 1 ? "is" : "are", grid.world(),
        grid.world());
  }
}

int generate_alone(const GenerateArguments& arguments) {
  arguments.model.request();  // refuses what is wrong with the options before the prompt is looked at
  const std::string text = read_prompt(arguments);
  const auto config = config::read_model_config(arguments.model.folder);
  const auto tokenizer = infer::load_tokenizer(arguments.model.folder, config);
  const std::vector<int64_t> prompt = checked_prompt(arguments, text, config, *tokenizer);
  const infer::Model model = arguments.model.load();
  const std::string error = show(arguments, model, *tokenizer, [&](const infer::GenerateListener& listener) {
    return infer::generate(model, *tokenizer, prompt, arguments.generate, listener);
  });
  if (!error.empty()) {
    throw UserError(error);
  }
  return 0;
}

}  // namespace

bool GenerateArguments::parse(const std::vector<std::string>& args, int64_t processes) {
  CommandLine line(
      "ee-infer --model DIR [--prompt TEXT] [options]",
      "Generates text. A token is made by the first exit whose largest probability reaches the "
      "threshold, otherwise by the final layer. Without --prompt and --prompt-file, the prompt is read "
      "from standard input.");
  model.declare(line);
  line.value("prompt", "TEXT", prompt, "what to continue");
  line.value("prompt-file", "FILE", prompt_file,
             "read the prompt from a file (one line end at its end is dropped)");
  line.flag("chat", chat, "the prompt is a user's message: put it into the model's chat template");
  line.value("system", "TEXT", system, "with --chat: the system message");
  line.value("threshold", "P", threshold,
             "confidence in [0, 1] from which an exit makes the token; 1 (default): never");
  line.value("quality", "A", quality,
             "in place of --threshold: the thresholds that `ee-tune calibrate --agreement A` found");
  line.value("policy", "confidence|gate", policy,
             "what an exit is judged by: its largest probability, or its gate's forecast");
  line.value("max-new-tokens", "N", generate.max_new_tokens, "the longest answer");
  line.value("context", "N", generate.context, "most tokens of prompt and answer; 0: what the model allows");
  line.value("temperature", "T", generate.sampling.temperature, "of sampling; 0: the most probable token");
  line.value("top-k", "K", generate.sampling.top_k, "sample from the K most probable tokens; 0: all");
  line.value("top-p", "P", generate.sampling.top_p,
             "sample from the fewest tokens that together have this probability");
  line.value("min-p", "P", generate.sampling.min_p,
             "no token below this fraction of the largest probability");
  line.value("seed", "N", seed, "of sampling");
  line.values("stop", "TEXT", generate.stop, "end in front of this text; may be repeated");
  line.flag("show-exits", show_exits,
            "colour each token by the exit that made it; then a legend and a histogram");
  line.flag("json", json, "print one JSON object instead of text");
  line.flag("probe", probe, "print every exit's token and confidence at each position");
  declare_spawn(line, spawn);
  line.value("tensor", "N", grid.tensor, "processes that split every matrix");
  line.value("pipeline", "N", grid.pipeline, "stages of processes that split the layers");
  if (!line.parse(args)) {
    return false;
  }
  check_spawn(spawn);
  check_grid(grid, spawn.value_or(processes));
  generate.sampling.seed = static_cast<uint64_t>(seed);
  generate.probe = probe;
  generate.threshold = threshold.value_or(generate.threshold);
  if (threshold && quality) {
    throw UserError("--threshold and --quality are both given, expected one of them");
  }
  if (const auto known = config::value_of<config::ExitPolicy>(policy)) {
    generate.policy = *known;
  } else {
    throw UserError("option --policy: expected confidence or gate, got '{}'", policy);
  }
  if (prompt && prompt_file) {
    throw UserError("--prompt and --prompt-file are both given, expected one of them");
  }
  if (system && !chat) {
    throw UserError("--system is for conversations: add --chat, or put the text into the prompt");
  }
  if (json && show_exits) {
    throw UserError(
        "--json and --show-exits are both given, expected one of them; --json names each token's exit");
  }
  if (probe && grid.pipeline > 1) {
    throw UserError("--probe wants every exit's opinion, but a pipeline skips exits; leave --pipeline out");
  }
  infer::check_options(generate);
  return true;
}

void choose_rules(GenerateArguments& arguments) {
  infer::GenerateOptions& generate = arguments.generate;
  if (arguments.quality) {
    generate.rules = infer::quality_rules(arguments.model.request(), *arguments.quality, generate.policy);
  } else if (generate.policy == config::ExitPolicy::gate) {
    infer::check_gates(arguments.model.folder);
  }
}

int run_generate(const std::vector<std::string>& args) {
  const comm::LaunchInfo launch = comm::detect_launch();
  GenerateArguments arguments;
  const auto parsed = one_speaks(launch.local_rank, [&] {
    const bool run = arguments.parse(args, launch.world_size);
    if (run) {
      choose_rules(arguments);
    }
    return run;
  });
  if (!parsed) {
    return base::kExitUserError;
  }
  if (!*parsed) {
    return 0;
  }
  if (arguments.spawn) {
    check_input(arguments);  // the ranks have no terminal
    return spawn_ranks(*arguments.spawn, args);
  }
  return launch.world_size > 1 ? generate_together(arguments, launch) : generate_alone(arguments);
}

}  // namespace ee::cli

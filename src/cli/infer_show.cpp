#include <cstdio>
#include <cstdlib>

#include "infer_generate.h"
#include "infer_report.h"

namespace ee::cli {

namespace {

void print(std::string_view text) {
  fmt::print("{}", text);
  std::fflush(stdout);  // a token at a time, also into a pipe
}

infer::Generation generate_for_people(const GenerateArguments& arguments, const infer::Model& model,
                                      const tokenizer::Tokenizer& tokenizer, const Generate& generate) {
  const ExitMarks marks(model, std::getenv("NO_COLOR") == nullptr);
  std::vector<int64_t> exits;  // of each token
  infer::GenerateListener listener;
  listener.on_token = [&](const infer::GeneratedToken& token) {
    if (arguments.probe) {
      print(probe_line(model, tokenizer, exits.size(), token));
    }
    exits.push_back(token.exit);
  };
  listener.on_text = [&](size_t token, std::string_view text) {
    if (!arguments.probe) {
      print(arguments.show_exits ? marks.mark(exits.at(token), text) : text);
    }
  };
  const infer::Generation generation = generate(listener);
  print(arguments.probe ? fmt::format("\n{}\n", generation.text) : "\n");
  if (arguments.show_exits && !generation.tokens.empty()) {
    print(fmt::format("\n{}{}", marks.legend(), exit_histogram(model, generation)));
  }
  return generation;
}

}  // namespace

std::string show(const GenerateArguments& arguments, const infer::Model& model,
                 const tokenizer::Tokenizer& tokenizer, const Generate& generate) {
  if (model.exits.empty() && arguments.generate.threshold < 1.0) {
    fmt::print(stderr, "note: {} has no exits, --threshold changes nothing; ee-convert attach adds some\n",
               arguments.model.folder);
  }
  if (!arguments.json) {
    return generate_for_people(arguments, model, tokenizer, generate).error;
  }
  const infer::Generation generation = generate({});
  print(fmt::format("{}\n", generation_json(model, tokenizer, generation)));
  return generation.error;
}

}  // namespace ee::cli

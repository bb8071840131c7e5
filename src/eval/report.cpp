#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "ee/eval/evaluate.h"

namespace ee::eval {

namespace {

using Json = nlohmann::ordered_json;

double share_of(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

Json to_json(const ExitResult& exit, int64_t tokens) {
  Json thresholds;
  for (const AtThreshold& at : exit.thresholds) {
    Json& entry = thresholds[fmt::format("{}", at.threshold)];
    entry["share"] = share_of(at.leave, tokens);
    entry["agreement"] = at.leave == 0 ? Json(nullptr) : Json(share_of(at.agree, at.leave));
  }
  return {{"layer", exit.layer},
          {"loss", exit.loss},
          {"perplexity", std::exp(exit.loss)},
          {"agreement", share_of(exit.agree, tokens)},
          {"thresholds", thresholds}};
}

std::string table_row(const ExitResult& exit, const std::string& name, int64_t tokens) {
  std::string row = fmt::format("{:>6}  {:>7.3f}  {:>10.5g}  {:>8.1f}%", name, exit.loss, std::exp(exit.loss),
                                100 * share_of(exit.agree, tokens));
  for (const AtThreshold& at : exit.thresholds) {
    const std::string agreement =
        at.leave == 0 ? "-" : fmt::format("{:.1f}%", 100 * share_of(at.agree, at.leave));
    row += fmt::format("  {:>6.1f}% {:>6}", 100 * share_of(at.leave, tokens), agreement);
  }
  return row + "\n";
}

}  // namespace

std::string to_json(const Evaluation& evaluation) {
  Json exits = Json::array();
  for (const ExitResult& exit : evaluation.exits) {
    exits.push_back(to_json(exit, evaluation.tokens));
  }
  return Json{{"tokens", evaluation.tokens},
              {"exits", exits},
              {"final", to_json(evaluation.final, evaluation.tokens)}}
      .dump();
}

std::string to_table(const Evaluation& evaluation) {
  std::string first = fmt::format("{:>6}  {:>7}  {:>10}  {:>9}", "", "", "", "agreement");
  std::string second = fmt::format("{:>6}  {:>7}  {:>10}  {:>9}", "exit", "loss", "perplexity", "with final");
  std::string mean = fmt::format("{:>37}", "average layers a token / all agree");
  for (size_t t = 0; t < evaluation.final.thresholds.size(); ++t) {
    first += fmt::format("  {:>14}", fmt::format("at {:.1f}:", evaluation.final.thresholds[t].threshold));
    second += fmt::format("  {:>7} {:>6}", "leave", "agree");
    int64_t layers = evaluation.final.thresholds[t].leave * evaluation.final.depth;
    int64_t agree = evaluation.final.thresholds[t].agree;
    for (const ExitResult& exit : evaluation.exits) {
      layers += exit.thresholds[t].leave * exit.depth;
      agree += exit.thresholds[t].agree;
    }
    mean += fmt::format("  {:>7.1f} {:>5.1f}%", share_of(layers, evaluation.tokens),
                        100 * share_of(agree, evaluation.tokens));
  }
  std::string table = first + "\n" + second + "\n";
  for (const ExitResult& exit : evaluation.exits) {
    table += table_row(exit, std::to_string(exit.layer), evaluation.tokens);
  }
  return table + table_row(evaluation.final, "final", evaluation.tokens) + mean +
         fmt::format("\n{} tokens\n", evaluation.tokens);
}

}  // namespace ee::eval

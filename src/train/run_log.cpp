#include "run_log.h"

#include <spdlog/spdlog.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "ee/base/text.h"
#include "process.h"

namespace ee::train {
namespace fs = std::filesystem;

namespace {

fs::path make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw base::UserError("cannot create folder {}: {}", folder.string(), error.message());
  return folder;
}

// What a log interval's steps learned. NaN, which JSON writes as null, if no step learned anything.
struct Interval {
  explicit Interval(const std::vector<StepResult>& steps) : steps_(steps) {
    for (const auto& step : steps) {
      tokens += step.learned_tokens;
      empty += step.learned_tokens == 0 ? 1 : 0;
    }
  }

  double loss(size_t exit) const {
    double sum = 0;
    for (const auto& step : steps_) sum += step.losses[exit] * static_cast<double>(step.learned_tokens);
    return sum / static_cast<double>(tokens);
  }
  double gradient_norm(size_t exit) const {
    double sum = 0;
    for (const auto& step : steps_) sum += step.gradient_norms[exit];  // 0 of an empty step
    return sum / static_cast<double>(std::ssize(steps_) - empty);
  }

  int64_t tokens = 0, empty = 0;  // learned tokens; steps without any

 private:
  const std::vector<StepResult>& steps_;
};

nlohmann::json to_json(const ExitScore& score) {
  return {{"layer", score.layer},
          {"loss", score.loss},
          {"perplexity", score.perplexity()},
          {"agreement", score.agreement}};
}

}  // namespace

RunLog::RunLog(const Job& job)
    : job_(job), metrics_(make_folder(job.options.logging.directory) / "metrics.jsonl") {
  if (job.options.logging.tensorboard) tensorboard_.emplace(job.options.logging.directory);
}

void RunLog::message(std::string_view text) {
  bar_.clear();
  spdlog::info("{}", text);
}

void RunLog::scalar(const std::string& tag, double value, int64_t step) {
  if (tensorboard_ && !std::isnan(value)) tensorboard_->add_scalar(tag, value, step);
}

void RunLog::event(int64_t step, const char* name) { metrics_.write({{"step", step}, {"event", name}}); }

void RunLog::step(int64_t step, const StepResult& result, double seconds) {
  interval_.push_back(result);
  interval_seconds_ += seconds;
  const double per_step = interval_seconds_ / static_cast<double>(interval_.size());
  const auto eta = base::format_duration(per_step * static_cast<double>(job_.steps - step));
  if (step % job_.options.logging.every_steps == 0 || step == job_.steps) flush(step);
  bar_.show(step, job_.steps, fmt::format("step {}/{}, {} left", step, job_.steps, eta));
}

void RunLog::flush(int64_t step) {
  const double seconds = interval_seconds_ / static_cast<double>(interval_.size());
  const double speed = static_cast<double>(job_.tokens_per_step()) / seconds;
  nlohmann::json losses = nlohmann::json::object(), norms = nlohmann::json::object();
  std::string loss_text;
  const auto names = job_.loss_names();
  const Interval interval(interval_);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto& layer = names[i];
    const auto tag = i < job_.exits.size() ? "exit_" + layer : layer;
    const double loss = interval.loss(i), norm = interval.gradient_norm(i);
    losses[layer] = loss;
    norms[layer] = norm;
    loss_text +=
        interval.tokens == 0 ? fmt::format("  {}: -", layer) : fmt::format("  {}: {:.3f}", layer, loss);
    scalar("loss/" + tag, loss, step);
    scalar("gradient_norm/" + tag, norm, step);
  }
  const double rate = interval_.back().learning_rate;
  const double samples = static_cast<double>(step * job_.options.batch.global_batch);
  nlohmann::json line = {{"step", step},
                         {"tokens", step * job_.tokens_per_step()},
                         {"learned_tokens", interval.tokens},
                         {"epoch", samples / static_cast<double>(job_.training.sequences().size())},
                         {"loss", losses},
                         {"gradient_norm", norms},
                         {"learning_rate", rate},
                         {"seconds_per_step", seconds},
                         {"tokens_per_second", speed},
                         {"peak_memory_bytes", peak_memory()}};
  if (interval.empty > 0) line["empty_steps"] = interval.empty;
  metrics_.write(line);
  scalar("learning_rate", rate, step);
  scalar("tokens_per_second", speed, step);
  if (tensorboard_) tensorboard_->flush();
  message(fmt::format("step {:>{}}/{}  loss{}  lr {:.2e}  {:.0f} tokens/s  {} left  peak {}", step,
                      std::to_string(job_.steps).size(), job_.steps, loss_text, rate, speed,
                      base::format_duration(seconds * static_cast<double>(job_.steps - step)),
                      base::format_bytes(static_cast<double>(peak_memory()))));
  if (interval.empty > 0) tell_empty_steps(step, interval.empty);
  interval_.clear();
  interval_seconds_ = 0;
}

void RunLog::tell_empty_steps(int64_t step, int64_t empty) {
  message(
      fmt::format("step {}/{}  {} of the last {} steps had nothing to learn (only prompts) and changed no "
                  "weight; {} such steps so far",
                  step, job_.steps, empty, interval_.size(), interval_.back().empty_steps));
}

void RunLog::evaluation(int64_t step, const Evaluation& evaluation) {
  nlohmann::json exits = nlohmann::json::array();
  std::string text;
  for (const auto& score : evaluation.exits) {
    exits.push_back(to_json(score));
    text += fmt::format("  {}: {:.3f} ({:.1f}%)", score.layer, score.loss, 100 * score.agreement);
    scalar(fmt::format("evaluation/loss/exit_{}", score.layer), score.loss, step);
    scalar(fmt::format("evaluation/agreement/exit_{}", score.layer), score.agreement, step);
  }
  metrics_.write({{"step", step},
                  {"evaluation",
                   {{"tokens", evaluation.tokens}, {"exits", exits}, {"final", to_json(evaluation.final)}}}});
  scalar("evaluation/loss/final", evaluation.final.loss, step);
  if (tensorboard_) tensorboard_->flush();
  message(fmt::format("step {}/{}  held-out loss (agreement with the final layer){}  final: {:.3f}", step,
                      job_.steps, text, evaluation.final.loss));
}

}  // namespace ee::train

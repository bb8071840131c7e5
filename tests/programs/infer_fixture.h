// ee-infer on a tiny model with exits at layers 2 (mlp) and 4 (norm, own head), as real processes.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "ee/checkpoint/attach.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/format/safetensors.h"
#include "support/model_on_disk.h"
#include "support/process.h"

namespace ee {

class Infer : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto* suite = testing::UnitTest::GetInstance()->current_test_suite();
    root_ =
        std::filesystem::path(testing::TempDir()) / fmt::format("ee-infer-{}-{}", ::getpid(), suite->name());
    std::filesystem::remove_all(root_);
    test::write_tiny_model(root_ / "plain");
    attach_two_exits("plain", "model");
  }
  static void attach_two_exits(const std::string& from, const std::string& to) {
    checkpoint::attach_exits(
        {.source = root_ / from,
         .output = root_ / to,
         .exits = {{.layer = 2, .kind = config::ExitKind::mlp},
                   {.layer = 4, .kind = config::ExitKind::norm, .head = config::HeadKind::own}},
         .dtype = {}});
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(root_); }

  static std::filesystem::path write(const std::string& name, std::string_view text) {
    std::ofstream(root_ / name, std::ios::binary) << text;
    return root_ / name;
  }
  static std::string path(const std::string& name) { return (root_ / name).string(); }

  // "broken" is the model with NaN as the embedding of one token.
  static void write_broken_model(int64_t token) {
    std::filesystem::remove_all(root_ / "broken");
    std::filesystem::remove_all(root_ / "broken-plain");
    std::filesystem::copy(root_ / "plain", root_ / "broken-plain");
    const std::filesystem::path file = root_ / "broken-plain/model.safetensors";
    std::vector<format::TensorToWrite> tensors;
    {
      const auto files = checkpoint::TensorFiles::open_file(root_ / "plain/model.safetensors");
      for (const auto& [name, index] : files.names()) {
        const at::Tensor tensor = files.alias(name).clone();
        if (name == "model.embed_tokens.weight") {
          tensor[token].fill_(std::numeric_limits<double>::quiet_NaN());
        }
        tensors.push_back({name, format::DType::f32, tensor.sizes().vec(), [tensor](const auto& sink) {
                             sink({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
                           }});
      }
    }
    std::filesystem::remove(file);
    format::write_safetensors(file, tensors);
    attach_two_exits("broken-plain", "broken");
  }

  // Of the tokens behind the prompt "Hello" the first, from the third on, that is neither in the prompt nor
  // said before: where a model that is broken for it begins to say nothing.
  static size_t first_new_token(const nlohmann::json& tokens) {
    size_t at = 0;
    std::set<int64_t> seen = {'H', 'e', 'l', 'o'};
    while (seen.contains(tokens[at]["id"]) || at < 2) {
      seen.insert(tokens[at++]["id"].get<int64_t>());
    }
    return at;
  }

  // The arguments with --model of the tiny model and one thread behind them.
  static test::Finished run(std::vector<std::string> args, const std::string& model = "model") {
    args.insert(args.end(), {"--model", path(model), "--threads", "1"});
    return run_bare(args);
  }
  static test::Finished run_bare(const std::vector<std::string>& args) {
    return test::Process(EE_BIN_DIR "/ee-infer", args, root_ / "output.log").wait();
  }
  // The same with a line on standard input; `options` as a shell takes them.
  static test::Finished run_with_input(const std::string& line, const std::string& options) {
    const auto command = fmt::format("printf '{}\\n' | {}/ee-infer --model {} --threads 1 {}", line,
                                     EE_BIN_DIR, path("model"), options);
    return test::Process("/bin/sh", {"-c", command}, root_ / "output.log").wait();
  }
  static nlohmann::json run_json(std::vector<std::string> args, const std::string& model = "model") {
    args.push_back("--json");
    const test::Finished finished = run(args, model);
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    return nlohmann::json::parse(finished.output);
  }
  // The command fails with exit code 2 and a message that contains `words`.
  static void expect_refused(const std::vector<std::string>& args, const std::string& words) {
    const test::Finished finished = run(args);
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, testing::HasSubstr(words));
  }

  static inline std::filesystem::path root_;
};

}  // namespace ee

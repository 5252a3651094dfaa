#include "cli/password.h"

#include <fcntl.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <iostream>

#include "base/file.h"

namespace umbel::cli {
namespace {

constexpr size_t kFileMax = 4096;

volatile std::sig_atomic_t interrupted = 0;

/// Shows nothing of what is typed, for as long as it lives. Who is interrupted meanwhile gets the
/// terminal back first.
class Hidden {
 public:
  explicit Hidden(int terminal) : terminal_(terminal) {
    struct sigaction ours {};  // without SA_RESTART: reading ends
    ours.sa_handler = [](int signal) { interrupted = signal; };
    ::sigaction(SIGINT, &ours, &before_int_);
    ::sigaction(SIGTERM, &ours, &before_term_);
    known_ = ::tcgetattr(terminal_, &before_) == 0;
    termios hidden = before_;
    hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    if (known_) ::tcsetattr(terminal_, TCSAFLUSH, &hidden);
  }
  ~Hidden() {
    if (known_) ::tcsetattr(terminal_, TCSAFLUSH, &before_);
    ::sigaction(SIGINT, &before_int_, nullptr);
    ::sigaction(SIGTERM, &before_term_, nullptr);
    if (interrupted != 0) ::raise(interrupted);
  }
  Hidden(const Hidden&) = delete;
  Hidden& operator=(const Hidden&) = delete;

 private:
  const int terminal_;
  termios before_{};
  struct sigaction before_int_ {};
  struct sigaction before_term_ {};
  bool known_ = false;
};

std::string FirstLine(const std::string& text) {
  std::string line = text.substr(0, text.find('\n'));
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

}  // namespace

Result<std::string> ReadPassword(const std::string& file, const std::string& prompt,
                                 const std::string& flag) {
  if (file == "-") {
    std::string line;
    std::getline(std::cin, line);
    return FirstLine(line);
  }
  if (!file.empty()) {
    UMBEL_ASSIGN(const std::string text, ReadFile(file, kFileMax));
    return FirstLine(text);
  }
  const Fd terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC));
  if (!terminal.valid())
    return Fail(Code::kFailedPrecondition,
                fmt::format("there is no terminal to ask for a password: name a file with {}, "
                            "or - for standard input",
                            flag));
  const auto show = [&terminal](const std::string& text) {
    return ::write(terminal.get(), text.data(), text.size()) >= 0;
  };
  std::string line;
  {
    // First: who types at once, as programs do, is not shown, and nothing of it is thrown away.
    const Hidden hidden(terminal.get());
    static_cast<void>(show(prompt + ": "));
    char byte = 0;
    while (line.size() < kFileMax && ::read(terminal.get(), &byte, 1) == 1 && byte != '\n')
      line.push_back(byte);
  }
  static_cast<void>(show("\n"));
  return line;
}

}  // namespace umbel::cli

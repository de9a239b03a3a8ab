// A load client: fixed requests at a fixed rate, or as fast as answers come, over kept connections, in one thread.
//
//   load ADDRESS PORT REQUESTS --connections N --seconds S --warmup S [--rate R] [--redis]
//
// REQUESTS holds whole requests, each after its length (uint32, little-endian); they are sent in turn. With a rate,
// request i is due at i / R, whatever became of those before it, and its latency counts from then: a server that falls
// behind is not spared the requests that wait. Without one, every connection sends as soon as it has its answer.
// Prints one JSON object: latencies in microseconds of the requests that were due after the warm-up.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr double GRACE_SECONDS = 10.0;  // for answers that are on their way when the time is over

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "load: %s\n", why.c_str());
  std::exit(1);
}

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Reads an answer piece by piece and knows when it is whole.
class Answer {
 public:
  virtual ~Answer() = default;
  // Takes bytes; true once the answer is whole. What comes after it is an error, since nothing else was asked.
  virtual bool take(const char* data, size_t size) = 0;
  virtual int status() const = 0;
  virtual bool closes() const { return false; }
  virtual void reset() = 0;
};

class HttpAnswer final : public Answer {
 public:
  bool take(const char* data, size_t size) override {
    if (!in_body_) {
      head_.append(data, size);
      const size_t end = head_.find("\r\n\r\n");
      if (end == std::string::npos) return false;
      const std::string rest = head_.substr(end + 4);
      head_.resize(end + 2);
      read_head();
      in_body_ = true;
      return body(rest.data(), rest.size());
    }
    return body(data, size);
  }
  int status() const override { return status_; }
  bool closes() const override { return closes_; }
  void reset() override { *this = HttpAnswer(); }

 private:
  void read_head() {
    if (head_.compare(0, 5, "HTTP/") != 0) fail("an answer is not of HTTP: " + head_.substr(0, 40));
    status_ = std::atoi(head_.c_str() + head_.find(' ') + 1);
    for (char& c : head_) c = static_cast<char>(std::tolower(c));
    const size_t length = head_.find("\r\ncontent-length:");
    if (length != std::string::npos) left_ = std::strtoull(head_.c_str() + length + 17, nullptr, 10);
    chunked_ = head_.find("\r\ntransfer-encoding: chunked") != std::string::npos;
    closes_ = head_.find("\r\nconnection: close") != std::string::npos;
  }

  bool body(const char* data, size_t size) {
    if (!chunked_) {
      left_ -= std::min<uint64_t>(left_, size);
      return left_ == 0;
    }
    chunks_.append(data, size);
    for (;;) {
      const size_t line = chunks_.find("\r\n");
      if (line == std::string::npos) return false;
      const size_t length = std::strtoull(chunks_.c_str(), nullptr, 16);
      if (chunks_.size() < line + 2 + length + 2) return false;
      chunks_.erase(0, line + 2 + length + 2);
      if (length == 0) return true;
    }
  }

  std::string head_, chunks_;
  bool in_body_ = false, chunked_ = false, closes_ = false;
  int status_ = 0;
  uint64_t left_ = 0;
};

// The answer to MGET: an array of bulk strings. Status 200 if every key has a value, 404 if not, 500 for an error.
class RedisAnswer final : public Answer {
 public:
  bool take(const char* data, size_t size) override {
    const char* end = data + size;
    while (data < end) {
      if (skip_ > 0) {
        const auto bytes = std::min<int64_t>(skip_, end - data);
        data += bytes;
        skip_ -= bytes;
        if (skip_ == 0 && --elements_ == 0) return true;
        continue;
      }
      line_.push_back(*data++);
      if (line_.size() < 2 || line_.compare(line_.size() - 2, 2, "\r\n") != 0) continue;
      const int64_t number = std::atoll(line_.c_str() + 1);
      const char kind = line_[0];
      line_.clear();
      if (kind == '*') {
        elements_ = number;
        if (number <= 0) return true;
      } else if (kind == '$' && number >= 0) {
        skip_ = number + 2;
      } else {
        status_ = kind == '$' ? 404 : 500;
        if (kind != '$' || --elements_ == 0) return true;
      }
    }
    return false;
  }
  int status() const override { return status_; }
  void reset() override { *this = RedisAnswer(); }

 private:
  std::string line_;
  int64_t elements_ = 1, skip_ = 0;
  int status_ = 200;
};

struct Options {
  std::string address, requests;
  int port = 0, connections = 16;
  double rate = 0.0, seconds = 5.0, warmup = 1.0;
  bool redis = false;
};

struct Connection {
  int fd = -1;
  Answer* answer = nullptr;
  const std::string* request = nullptr;  // the one that it waits for, or none
  size_t sent = 0;
  double due = 0.0;
  bool waits_to_send = false;
};

class Load {
 public:
  explicit Load(const Options& options) : options_(options), epoll_(epoll_create1(0)) {
    read_requests();
    for (int i = 0; i < options.connections; ++i) {
      Connection& made = connections_.emplace_back();
      made.answer = options.redis ? static_cast<Answer*>(new RedisAnswer()) : new HttpAnswer();
      connect(made);
      free_.push_back(&made);
    }
  }

  void run() {
    start_ = now();
    measured_from_ = start_ + options_.warmup;
    end_ = measured_from_ + options_.seconds;
    std::vector<epoll_event> events(static_cast<size_t>(options_.connections));
    for (;;) {
      const double time = now();
      if (time < end_) send_due(time);
      if (time >= end_ && (busy_ == 0 || time >= end_ + GRACE_SECONDS)) break;
      const int found = wait(events, time);
      for (int i = 0; i < found; ++i) handle(*static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr),
                                             events[static_cast<size_t>(i)].events);
    }
    count_missing();
  }

  void print() {
    std::sort(latencies_.begin(), latencies_.end());
    double sum = 0.0;
    for (const float each : latencies_) sum += each;
    std::printf("{\"rate\": %.17g, \"seconds\": %.17g, \"connections\": %d, \"ok\": %ld, \"failed\": %ld, ",
                options_.rate, options_.seconds, options_.connections, ok_, failed_);
    std::printf("\"per_second\": %.17g, \"unsent\": %ld, \"statuses\": {", static_cast<double>(ok_) / options_.seconds,
                unsent_);
    const char* comma = "";
    for (const auto& [status, count] : statuses_) {
      std::printf("%s\"%d\": %ld", comma, status, count);
      comma = ", ";
    }
    std::printf("}, \"mean_us\": %.6g", latencies_.empty() ? 0.0 : sum / static_cast<double>(latencies_.size()));
    for (const auto& [name, share] : {std::pair{"p50_us", 0.5}, {"p90_us", 0.9}, {"p95_us", 0.95}, {"p99_us", 0.99},
                                      {"p999_us", 0.999}, {"max_us", 1.0}}) {
      std::printf(", \"%s\": %.6g", name, quantile(share));
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const double cpu = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                       1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    std::printf(", \"client_cpu_seconds\": %.6g}\n", cpu);
  }

 private:
  void read_requests() {
    FILE* file = std::fopen(options_.requests.c_str(), "rb");
    if (file == nullptr) fail("cannot read " + options_.requests);
    uint32_t length = 0;
    while (std::fread(&length, sizeof length, 1, file) == 1) {
      std::string& request = requests_.emplace_back(length, '\0');
      if (std::fread(request.data(), 1, length, file) != length) fail("the file of requests ends too early");
    }
    std::fclose(file);
    if (requests_.empty()) fail("there are no requests");
  }

  void connect(Connection& made) {
    made.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(options_.port));
    if (inet_pton(AF_INET, options_.address.c_str(), &to.sin_addr) != 1) fail("no IPv4 address: " + options_.address);
    if (::connect(made.fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
      fail("cannot connect to port " + std::to_string(options_.port) + ": " + std::strerror(errno));
    }
    const int one = 1;
    setsockopt(made.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &made;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, made.fd, &event);
  }

  double due(long number) const {
    return options_.rate > 0.0 ? start_ + static_cast<double>(number) / options_.rate : 0.0;
  }

  void send_due(double time) {
    while (!free_.empty() && due(started_) <= time) {
      Connection& with = *free_.front();
      free_.pop_front();
      with.request = &requests_[static_cast<size_t>(started_) % requests_.size()];
      with.sent = 0;
      with.due = options_.rate > 0.0 ? due(started_) : time;
      with.answer->reset();
      ++started_;
      ++busy_;
      send_more(with);
    }
  }

  void send_more(Connection& with) {
    while (with.request != nullptr && with.sent < with.request->size()) {
      const ssize_t sent = send(with.fd, with.request->data() + with.sent, with.request->size() - with.sent,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && (errno == EAGAIN || errno == EINTR)) break;
      if (sent < 0) return broken(with);
      with.sent += static_cast<size_t>(sent);
    }
    const bool more = with.request != nullptr && with.sent < with.request->size();
    if (more == with.waits_to_send) return;
    with.waits_to_send = more;
    epoll_event event{};
    event.events = more ? EPOLLIN | EPOLLOUT : EPOLLIN;
    event.data.ptr = &with;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, with.fd, &event);
  }

  int wait(std::vector<epoll_event>& events, double time) {
    double until = time < end_ ? end_ : end_ + GRACE_SECONDS;
    if (time < end_ && !free_.empty()) until = std::min(until, due(started_));
    const double seconds = std::max(0.0, until - time);
    timespec timeout{};
    timeout.tv_sec = static_cast<time_t>(seconds);
    timeout.tv_nsec = static_cast<long>((seconds - std::floor(seconds)) * 1e9);
    return epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
  }

  void handle(Connection& with, uint32_t events) {
    if ((events & EPOLLOUT) != 0) send_more(with);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    for (;;) {
      const ssize_t got = recv(with.fd, buffer_, sizeof buffer_, MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (got <= 0) return broken(with);
      if (with.request == nullptr) fail("an answer to nothing came");
      if (with.answer->take(buffer_, static_cast<size_t>(got))) return finish(with);
      if (static_cast<size_t>(got) < sizeof buffer_) return;
    }
  }

  void finish(Connection& with) {
    const double time = now();
    count(with.answer->status(), with.due, time);
    with.request = nullptr;
    --busy_;
    free_.push_back(&with);
    if (with.answer->closes()) again(with);
  }

  void broken(Connection& with) {
    if (with.request != nullptr) {
      count(0, with.due, now());
      with.request = nullptr;
      --busy_;
      free_.push_back(&with);
    }
    again(with);
  }

  void again(Connection& with) {
    with.waits_to_send = false;
    close(with.fd);
    connect(with);
  }

  void count(int status, double due, double time) {
    if (due < measured_from_) return;
    ++statuses_[status];
    ++(status == 200 ? ok_ : failed_);
    latencies_.push_back(static_cast<float>(1e6 * (time - due)));
  }

  // Requests that were due and not sent, or not answered: they have taken at least until the end.
  void count_missing() {
    const double time = now();
    for (const Connection& with : connections_) {
      if (with.request != nullptr) count(-1, with.due, time);
    }
    for (; options_.rate > 0.0 && due(started_) < end_; ++started_) {
      if (due(started_) < measured_from_) continue;
      ++unsent_;
      latencies_.push_back(static_cast<float>(1e6 * (end_ - due(started_))));
    }
  }

  double quantile(double share) const {
    if (latencies_.empty()) return 0.0;
    const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(latencies_.size())));
    return latencies_[std::max<size_t>(rank, 1) - 1];
  }

  Options options_;
  int epoll_;
  std::vector<std::string> requests_;
  std::deque<Connection> connections_;
  std::deque<Connection*> free_;
  double start_ = 0.0, measured_from_ = 0.0, end_ = 0.0;
  long started_ = 0, busy_ = 0, ok_ = 0, failed_ = 0, unsent_ = 0;
  std::map<int, long> statuses_;  // 0: the connection broke; -1: no answer came
  std::vector<float> latencies_;
  char buffer_[1 << 18];
};

Options read_options(int argc, char** argv) {
  if (argc < 4) fail("usage: load ADDRESS PORT REQUESTS [--connections N] [--seconds S] [--warmup S] [--rate R] "
                     "[--redis]");
  Options options;
  options.address = argv[1];
  options.port = std::atoi(argv[2]);
  options.requests = argv[3];
  for (int i = 4; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--redis") {
      options.redis = true;
      continue;
    }
    if (i + 1 == argc) fail("an option lacks its value: " + std::string(name));
    const double value = std::atof(argv[++i]);
    if (name == "--connections") options.connections = static_cast<int>(value);
    else if (name == "--seconds") options.seconds = value;
    else if (name == "--warmup") options.warmup = value;
    else if (name == "--rate") options.rate = value;
    else fail("unknown option " + std::string(name));
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  prctl(PR_SET_TIMERSLACK, 1000UL);  // a microsecond instead of fifty
  static Load load(read_options(argc, argv));
  load.run();
  load.print();
  return 0;
}

// For a compiler: templates of the standard library.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

template <int N> struct Table {
    std::map<std::string, std::vector<int>> index;
    std::vector<std::unique_ptr<std::string>> strings;
    long fill(int count) {
        for (int i = 0; i < count; i++) {
            index["word" + std::to_string(i % (97 + N))].push_back(i * N);
            strings.push_back(std::make_unique<std::string>(i % 17, char('a' + N % 26)));
        }
        std::sort(strings.begin(), strings.end(),
                  [](const auto &a, const auto &b) { return a->size() + N < b->size() + N; });
        return long(index.size() + strings.size());
    }
};

template <int N> long all(int count) {
    Table<N> table;
    return table.fill(count) + all<N - 1>(count);
}
template <> long all<0>(int) { return 0; }

int main(int count, char **) { return int(all<TABLES>(count) % 100); }

# Arrays, associative arrays, strings, subshells.
declare -A words=()
declare -a parts=()
text=
for ((number = 1; number <= $1; number++)); do
    words[w$((number * 7919 % 5003))]=$number
    parts+=("$number")
    text+=x$number
done
changed=${text: -2000}
changed=${changed//1/one}
for ((number = 1; number <= 20; number++)); do
    parts+=("$(echo "$number")")
done
echo "${#words[@]} ${#parts[@]} ${#text} ${#changed}"

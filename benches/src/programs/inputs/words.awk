# Counts words in associative arrays, joins and splits strings.
{
    for (i = 1; i <= NF; i++) { count[$i]++; places[$i] = places[$i] "," NR % 10 }
}
END {
    for (word in count) {
        words++; total += split(places[word], parts, ","); bytes += length(places[word])
    }
    print words, total, bytes
}

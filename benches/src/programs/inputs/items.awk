# Writes a JSON array of so many objects.
BEGIN {
    printf "["
    for (i = 0; i < size; i++) {
        printf "%s{\"id\":%d,\"tags\":[\"t%d\",\"u%d\",\"v%d\"],", i ? ",\n" : "", i, i % 97, i % 89, i % 83
        printf "\"values\":[%d,%d,%d,%d]}", i, i * 3, i * 5 % 1009, i % 7
    }
    print "]"
}

# Writes so many lines of words; the same on every machine.
BEGIN {
    for (line = 0; line < size; line++) {
        text = ""
        for (word = 0; word < 12; word++) {
            state = (state * 69069 + 12345) % 1048576
            text = text " w" int(state / 7) % 40009
        }
        print substr(text, 2)
    }
}

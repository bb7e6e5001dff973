# Writes a makefile of so many rules, each with prerequisites among the others.
BEGIN {
    print "all: t" size - 1
    for (i = 0; i < size; i++) {
        printf "t%d:", i
        if (i > 0) printf " t%d t%d t%d", i - 1, int(i / 2), int(i / 3)
        printf "\n\techo $(addsuffix .o,$(patsubst %%,%%-%d,one two three)) $@ $^\n", i
    }
}

# Hashes of arrays, sorting, substitution.
use strict; use warnings;
my (%words, @lines);
for my $i (1 .. $ARGV[0]) {
    my $word = "word" . ($i * 7919 % 30011);
    $words{$word}{count}++;
    push @{ $words{$word}{places} }, $i;
    push @lines, "$word:" . ("x" x ($i % 50)) if $i % 5 == 0;
}
my $joined = join "\n", sort @lines;
(my $changed = $joined) =~ s/(\d):x+/$1/g;
my $check = 0;
$check = ($check * 31 + length) % 1_000_000_007 for split /\n/, $changed;
print scalar(keys %words), " ", length $joined, " ", length $changed, " $check\n";

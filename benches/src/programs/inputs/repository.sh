# Makes a repository of a given number of files, with six commits.
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git init --quiet --initial-branch=trunk repository
cd repository
git config gc.auto 0
git config user.name a
git config user.email a@example.org
for commit in 1 2 3 4 5 6; do
    i=0
    while [ $i -lt "$1" ]; do
        i=$((i + commit))
        seq $((i * commit)) $((i * commit + 400)) >"file$i"
    done
    git add .
    git commit --quiet --message="commit $commit"
done

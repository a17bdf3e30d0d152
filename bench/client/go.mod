module livestate.bench/client

go 1.22

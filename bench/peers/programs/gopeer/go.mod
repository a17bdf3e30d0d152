module livestate.bench/gopeer

go 1.22

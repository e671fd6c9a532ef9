"""A conformance set for the meaning of VCF records: README.md explains its files."""

"""Generated from dataplane/proto by `make proto`; never edited by hand."""

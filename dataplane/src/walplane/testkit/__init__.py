"""What tests share: the conformance suite, checkers of histories, processes under test."""

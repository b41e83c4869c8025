"""The ways of the ledger to its store and its peers."""

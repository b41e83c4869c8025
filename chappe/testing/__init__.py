"""What tests of systems built on Chappe need: history checker, reference client, fakes of the edge."""

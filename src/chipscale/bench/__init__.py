"""Independent tests of a device: measure, and write down what was measured."""

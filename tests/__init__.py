"""Tests, in a package of that name: verl installs another one called ``tests``, which would be found first."""

"""What a measurement of speed needs: the machine, its limits, time, memory, operations."""

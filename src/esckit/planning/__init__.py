"""The encoder planner whole: features of turns, the networks and the forest, calibration, fitting, its folder."""

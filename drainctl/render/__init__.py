"""Whole configurations of nginx and HAProxy out of drainctl.yml. Pure text: nothing is looked at."""

"""Tables, figures and the HTML report, made from what tests and trainings wrote."""

/* A shared object that is no planner algorithm. */
extern const int ts_something_else;
const int ts_something_else = 1;
